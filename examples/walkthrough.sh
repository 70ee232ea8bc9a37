#!/usr/bin/env bash
# Every call of the gateway but those of queries (see queries.sh), with curl, on the countries of the world.
#
# It starts two peers of its own on free ports, shows each command with the beginning of its answer, fails at the
# first answer that is not the expected one, and leaves nothing behind. Needs bash and curl, and the programs: those of
# $AEROLITHSDB_BIN (a folder), else of target/release or target/debug (`cargo build --release --bins`).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
for bin in "${AEROLITHSDB_BIN:-}" "$here/../target/release" "$here/../target/debug"; do
    if [ -n "$bin" ] && [ -x "$bin/aerolithsdb" ]; then break; fi
done
unset AEROLITHSDB_BIN # The peers would take it for a misspelt key of their configuration.
[ -x "$bin/aerolithsdb" ] || { echo "no aerolithsdb in $bin: run cargo build --release --bins first" >&2; exit 1; }

folder=$(mktemp -d)
declare -A pids=()
finish() {
    kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap finish EXIT
fail() { printf '\nFAILED: %s\n' "$*" >&2; cat "$folder"/*.log >&2; exit 1; }

# A peer by its name; it prints its URL when it serves. Started again it listens at the same port for other peers.
start() {
    local listen=/ip4/127.0.0.1/udp/0/quic-v1
    if [ -s "$folder/$1.out" ]; then listen=$(sed -n 's/^ *listens *//p' "$folder/$1.out"); fi
    : >"$folder/$1.out"
    "$bin/aerolithsdb" --data-dir "$folder/$1" --rest-port 0 --no-mdns --listen "$listen" \
        >"$folder/$1.out" 2>"$folder/$1.log" &
    pids[$1]=$!
    until grep -q '^  invite' "$folder/$1.out"; do
        kill -0 "${pids[$1]}" 2>/dev/null || fail "peer $1 did not start"
        sleep 0.05
    done
    url=$(sed -n 's/^ *rest *//p' "$folder/$1.out")
    printf '\n(peer %s serves at %s)\n' "$1" "$url"
}
stop() { kill "${pids[$1]}"; wait "${pids[$1]}" || fail "peer $1 did not end well"; unset "pids[$1]"; }

title() { printf '\n== %s ==\n' "$1"; }
show() {
    printf '\n$ curl'
    local word
    for word; do
        if [ ${#word} -gt 200 ]; then word="${word:0:80}...\"}"; fi # A ticket.
        case $word in *[!A-Za-z0-9:/._=-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
}
# The call itself: `call STATUS arguments of curl`. The answer is then in $folder/body, its head in $folder/head.
call() {
    local expected=$1 status
    shift
    show "$@"
    : >"$folder/body" # An answer without a body leaves it as it is.
    status=$(curl -sS -o "$folder/body" -D "$folder/head" -w '%{http_code}' "$@") || fail "curl $*"
    printf '%s  %s\n' "$status" "$(head -c 240 "$folder/body" | tr -d '\0' | head -n 3)"
    [ "$status" = "$expected" ] || fail "expected $expected, got $status: $(cat "$folder/body")"
}
# What the answer must hold; a header of it; a text in it, by its name.
has() { grep -qF -- "$1" "$folder/body" || fail "the answer does not hold $1: $(head -c 2000 "$folder/body")"; }
header() { sed -n "s/^$1: \(.*\)\r$/\1/ip" "$folder/head"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$folder/body" | head -n 1; }
# Asks until the answer holds something: `until_has TEXT URL`.
until_has() {
    for _ in $(seq 600); do
        if [[ $(curl -sS "$2") == *"$1"* ]]; then return; fi
        sleep 0.1
    done
    fail "$2 does not come to hold $1: $(curl -sS "$2")"
}

json='content-type: application/json'
lines='content-type: application/x-ndjson'
start a; a=$url api=$a/api/v1

title "Is it there?"
call 200 "$a/health";               has '"ok"'
call 200 "$api/health/ready";       has '"ready"'
call 200 "$api/nodes/status";       has '"peer_id"'
call 200 "$api/openapi.json";       has '"openapi":"3.1'
call 200 "$a/docs";                 has '<html'
call 200 "$a/metrics";              has '# TYPE'

title "Many documents in and out"
documents=$api/collections/countries/documents
call 200 -X POST -H "$lines" --data-binary "@$here/data/countries.ndjson" "$documents:bulk"
[ "$(grep -c '"result":"created"' "$folder/body")" = 252 ] || fail "not every country was created"
call 200 -X POST -H "$lines" --data-binary "@$here/data/countries.ndjson" "$documents:bulk?mode=put"
has '"result":"unchanged"'
call 200 -X POST -H "$lines" --data-binary '{"_id":"AD","name":"again"}' "$documents:bulk?mode=insert"
has '"status":409'
call 200 -X POST -H "$lines" --data-binary $'{"_id":"AQ","_deleted":true}\nnot JSON' "$documents:bulk"
has '"result":"deleted"'; has '"line":2,"status":400'
call 200 "$documents?limit=2";                              has '"id":"AD"'
call 200 "$documents?limit=2&cursor=$(field next_cursor)";  has '"id":"AE"'
call 200 "$documents?limit=1&start_after=FR";               has '"id":"GA"'
call 200 -H 'accept: application/x-ndjson' "$documents"
[ "$(wc -l <"$folder/body")" = 251 ] || fail "the export is not the whole collection"
call 200 "$api/collections";            has '"name":"countries"'
call 200 "$api/collections/countries";  has '"documents":251'

call 201 -X PUT "$api/collections/empty"
call 200 -X PUT "$api/collections/empty"

title "One document"
notes=$api/collections/notes/documents
call 201 -X POST -H "$json" -d '{"wind":1}' "$notes"
location=$(header location)
call 200 "$a$location";                                                        has '"wind":1'
call 201 -X POST -H "$json" -d '{"_id":"today","wind":4,"crew":["Ada"]}' "$notes"
first=$(header etag) head=$(sed 's/.*"heads":\["\([0-9a-f]*\)".*/\1/' "$folder/body")
call 200 "$notes/today";                                                       has '"wind":4'
call 304 -H "if-none-match: $first" "$notes/today"
call 200 -X PUT -H "$json" -d '{"wind":5,"crew":["Ada"],"text":"Calm."}' "$notes/today"
call 412 -X PUT -H "$json" -H "if-match: $first" -d '{"wind":6}' "$notes/today"
call 412 -X PUT -H "$json" -H 'if-none-match: *' -d '{"wind":6}' "$notes/today"
call 200 -X PUT -H "$json" -H 'if-match: *' -d '{"wind":6,"crew":["Ada"],"text":"Calm."}' "$notes/today"

title "Parts of a document"
patch=(-X PATCH -H "$json")
call 200 "${patch[@]}" -d '{"$set":{"sea.state":3},"$push":{"crew":"Bo"}}' "$notes/today"; has '"crew":["Ada","Bo"]'
call 200 "${patch[@]}" -d '{"$inc":{"visits":2}}' "$notes/today"
call 200 "${patch[@]}" -d '{"$inc":{"visits":-1}}' "$notes/today";                         has '"visits":1'
call 200 "${patch[@]}" -d '{"$text":{"text":{"position":4,"insert":" sea"}}}' "$notes/today"; has '"Calm sea."'
call 200 -X PATCH -H 'content-type: application/merge-patch+json' -d '{"wind":7,"sea":null}' "$notes/today"
has '"wind":7'
call 200 -X PATCH -H 'content-type: application/json-patch+json' \
    -d '[{"op":"test","path":"/wind","value":7},{"op":"replace","path":"/wind","value":8}]' "$notes/today"
has '"wind":8'
call 409 -X PATCH -H 'content-type: application/json-patch+json' \
    -d '[{"op":"test","path":"/wind","value":1}]' "$notes/today"
call 404 "${patch[@]}" -d '{"$inc":{"visits":1}}' "$notes/tomorrow"
call 201 "${patch[@]}" -d '{"$inc":{"visits":1}}' "$notes/tomorrow?upsert=true"

title "The past of a document"
call 200 "$notes/today/history?limit=2";                                    has '"after":8'
call 200 "$notes/today?at=$head";                                           has '"wind":4'
call 200 "$notes/today/diff?from=$head";                                    has '"path":"/wind"'
call 200 "$notes/today/diff?from=$head&format=json-patch";                  has '"op":"replace","path":"/wind","value":8'
call 200 -X POST -H "$json" -d "{\"at\":\"$head\"}" "$notes/today/restore"; has '"wind":4'
call 204 -X DELETE "$notes/tomorrow"
call 404 "$notes/tomorrow"

title "What changed"
call 200 "$api/collections/notes/changes";                                  has '"deleted":true'
call 200 "$api/collections/notes/changes?since=$(field next_cursor)";       has '"changes":[]'
show -N --max-time 3 "$api/collections/notes/changes?live=true&id_prefix=to"
curl -sSN --max-time 3 "$api/collections/notes/changes?live=true&id_prefix=to" >"$folder/body" 2>/dev/null || true
head -c 240 "$folder/body"; echo
has 'event: change'

title "Bad requests, and what is said about them"
call 400 -X PUT -H "$json" -d '{"wind":4,}' "$notes/today";                 has '"position":{"line":1'
call 400 "$notes?limitt=3";                                                 has 'limitt'
call 422 -X PUT -H "$json" -d '{}' "$api/collections/no%20spaces/documents/x"; has '"status":422'
call 415 -X PUT -H 'content-type: text/plain' -d 'wind' "$notes/today"
call 404 "$api/nothing/here"
call 421 -H 'host: evil.example' "$api/collections"
call 400 -X POST -H "$json" -d '{"ticket":"aero1"}' "$api/mesh/join";                 has "cut short"

title "Two peers"
call 201 -X POST -H "$json" -d '{"role":"writer","uses":1,"expires_in_s":3600}' "$api/mesh/invites"
ticket=$(field ticket)
start b; b=$url
call 200 -X POST -H "$json" -d "{\"ticket\":\"$ticket\"}" "$b/api/v1/mesh/join"; has '"mesh"'
until_has '"documents":251' "$b/api/v1/collections/countries"
call 200 "$api/mesh/peers";                                                 has '"role":"writer"'
call 200 -X PUT -H "$json" -d '{"wind":9}' "$notes/today?w=1&timeout_ms=30000"; has '"write_concern"'
call 202 -X PUT -H "$json" -d '{"wind":4}' "$notes/today?w=2&timeout_ms=100"
until_has '"state":"in_sync"' "$api/sync"
call 200 "$api/sync";                                                       has '"state":"in_sync"'
call 200 "$api/sync/why/notes/today";                                       has '"heads"'
call 200 "$api/sync/safe-to-leave?peers=1&timeout_ms=30000";                has '"safe":true'
call 200 "$api/stats";                                                      has '"connected":1'

title "Edits of peers that were apart"
until_has '"wind":4' "$b/api/v1/collections/notes/documents/today"
stop b
call 200 -X PUT -H "$json" -d '{"wind":5}' "$notes/today"
stop a
start b; b=$url
call 200 -X PUT -H "$json" -d '{"wind":6}' "$b/api/v1/collections/notes/documents/today"
start a; a=$url api=$url/api/v1
notes=$api/collections/notes/documents
until_has '"path":"/wind"' "$notes/today/conflicts"
call 200 "$notes/today/conflicts";                                          has '"value":5'; has '"value":6'
call 200 "$api/collections/notes/conflicts";                                 has '"conflict_count":1'
call 200 -X PUT -H "$json" -d '{"wind":5.5}' "$notes/today"
call 200 "$notes/today/conflicts";                                          has '"conflicts":[]'

title "Dropping a collection, and leaving"
call 200 -X DELETE "$api/collections/notes";                                has '"deleted":'
until_has '"documents":0' "$b/api/v1/collections/notes"
call 200 "$api/sync/safe-to-leave?peers=1&timeout_ms=30000";                has '"safe":true'
call 200 -X POST -H "$json" -d '{"local_documents":"leave"}' "$b/api/v1/mesh/leave"; has '"mesh"'
call 201 -X POST -H "$json" -d '{"name":"office"}' "$b/api/v1/mesh/init";   has '"mesh"'

printf '\nEvery answer was as expected.\n'
