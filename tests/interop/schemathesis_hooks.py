"""What schemathesis must know of a peer that its description does not say."""

import schemathesis

LINES = "application/x-ndjson"
WAIT_MS = 50


@schemathesis.hook
def filter_query(context, query):
    """A live answer does not end."""
    return not query or str(query.get("live", "false")).lower() == "false"


@schemathesis.hook
def map_query(context, query):
    """There are no other peers to wait for."""
    wait = (query or {}).get("timeout_ms")
    if isinstance(wait, int) and WAIT_MS < wait <= 60_000:
        query["timeout_ms"] = WAIT_MS
    return query


@schemathesis.serializer(LINES)
def lines(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
