"""What schemathesis must know of a peer that its description does not say."""

import schemathesis

WAIT_MS = 50


@schemathesis.hook
def before_call(context, case, **kwargs):
    query = case.query or {}
    # A live answer does not end.
    if str(query.get("live")).lower() == "true":
        query["live"] = "false"
    # There are no other peers to wait for.
    wait = str(query.get("timeout_ms"))
    if wait.isdigit() and WAIT_MS < int(wait) <= 60_000:
        query["timeout_ms"] = WAIT_MS
