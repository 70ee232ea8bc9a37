#!/usr/bin/env bash
# Questions about the countries of the world, and about its cities, to the client and to curl.
#
# It starts a peer of its own on free ports, shows each question with the beginning of its answer, fails at the first
# answer that is not the expected one, and leaves nothing behind. Needs bash and curl, and the programs: those of
# $AEROLITHSDB_BIN (a folder), else of target/release or target/debug (`cargo build --release --bins`). The cities are
# in cities.ndjson.gz (_id, name, country, admin1, location) in the folder that $AEROLITHSDB_DATA names; without it they
# are left out.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
for bin in "${AEROLITHSDB_BIN:-}" "$here/../target/release" "$here/../target/debug"; do
    if [ -n "$bin" ] && [ -x "$bin/aerolithsdb" ]; then break; fi
done
cities=${AEROLITHSDB_DATA:-}/cities.ndjson.gz
unset AEROLITHSDB_BIN AEROLITHSDB_DATA # The peer would take them for misspelt keys of its configuration.
[ -x "$bin/aerolithsdb" ] || { echo "no aerolithsdb in $bin: run cargo build --release --bins first" >&2; exit 1; }

folder=$(mktemp -d)
peer='' stream=''
finish() {
    kill $stream $peer 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap finish EXIT
fail() { printf '\nFAILED: %s\n' "$*" >&2; cat "$folder"/*.log >&2; exit 1; }

: >"$folder/peer.out" # It is read before the peer has written it.
"$bin/aerolithsdb" --data-dir "$folder/peer" --rest-port 0 --no-mdns --listen /ip4/127.0.0.1/udp/0/quic-v1 \
    >"$folder/peer.out" 2>"$folder/peer.log" &
peer=$!
until grep -q '^  invite' "$folder/peer.out"; do
    kill -0 "$peer" 2>/dev/null || fail "the peer did not start"
    sleep 0.05
done
AEROLITHSDB_URL=$(sed -n 's/^ *rest *//p' "$folder/peer.out")
export AEROLITHSDB_URL

title() { printf '\n== %s ==\n' "$1"; }
show() {
    printf '\n$'
    local word
    for word; do
        case $word in *[!A-Za-z0-9:/._=,-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
}
# A question to the client: `ask CODE arguments`, where CODE is how it must end. The answer is then in $folder/answer,
# and what it said besides in $folder/said.
ask() {
    local expected=$1 code=0
    shift
    show aerolithsdb-cli "$@"
    "$bin/aerolithsdb-cli" "$@" >"$folder/answer" 2>"$folder/said" || code=$?
    head -n 12 "$folder/answer" | cut -c -160
    cat "$folder/said"
    [ "$code" = "$expected" ] || fail "expected exit code $expected, got $code"
}
# The same with a table instead of JSON.
ask_table() { ask 0 --output table "$@"; }
# What the answer must hold, or must not; how many lines it must have; what must be said besides.
has() { grep -qF -- "$1" "$folder/answer" || fail "the answer does not hold $1: $(head -c 2000 "$folder/answer")"; }
has_not() { ! grep -qF -- "$1" "$folder/answer" || fail "the answer holds $1: $(head -c 2000 "$folder/answer")"; }
lines() { [ "$(wc -l <"$folder/answer")" = "$1" ] || fail "the answer has not $1 lines: $(cat "$folder/answer")"; }
says() { grep -qF -- "$1" "$folder/said" || fail "it is not said: $1"; }
# Waits until the live stream holds something.
until_streamed() {
    for _ in $(seq 600); do
        if grep -qF -- "$1" "$folder/stream"; then return; fi
        sleep 0.05
    done
    fail "the stream does not come to hold $1: $(cat "$folder/stream")"
}

ask 0 import countries "$here/data/countries.ndjson"; has '"created":252'

title "1. Which country has its capital at Reykjavik?"
ask 0 query search countries --filter '{"capital":"Reykjavik"}' --projection '{"name":1,"native":1}'
has '{"_id":"IS","name":"Iceland","native":"Ísland"}'; lines 1

title "2. How many countries are in Europe, or about how many?"
ask 0 query count countries --filter '{"continent":"EU"}';              has '"count":52,"exact":true'
ask 0 query count countries --filter '{"continent":"EU"}' --estimate;   has '"exact":false'

title "3. Where is Portuguese spoken outside of Europe? (a value within a list)"
ask_table query search countries --filter '{"languages":"pt","continent":{"$ne":"EU"}}' --sort -name \
    --projection '{"name":1,"continent":1}'
has 'Cabo Verde'; has_not 'Portugal'; lines 9

title "4. Where are two currencies in use?"
ask 0 query count countries --filter '{"currency.1":{"$exists":true}}'; has '"count":13'

title "5. Which are called after a saint, and are no part of another? (patterns, and fields that are not there)"
ask 0 query search countries --filter '{"name":{"$regex":"^saint ","$options":"i"},"partOf":{"$exists":false}}'
lines 6; has_not 'Saint Helena'

title "6. Which continents are there, and how many countries has each?"
ask 0 query distinct countries continent;                               lines 7
ask_table query aggregate countries '[{"$sortByCount":"$continent"},{"$limit":3}]'
[ "$(sed -n 2p "$folder/answer" | tr -s ' ')" = ' AF 60' ] || fail "Africa is not the first"

title "7. Which languages are spoken in the most countries? (a list taken apart, from standard input)"
stages='[{"$unwind":"$languages"},{"$group":{"_id":"$languages","countries":{"$sum":1}}},
    {"$sort":"-countries,_id"},{"$limit":5}]'
ask 0 query aggregate countries - <<<"$stages"
has '{"_id":"en","countries":92}'; lines 5

title "8. The countries of Europe from Z to A, three at a time (explained before and after an index)"
europe=(countries --filter '{"continent":"EU"}' --sort -name --limit 3)
ask_table query explain "${europe[@]}";                                 has 'walk: 252 rows'
ask 0 query search "${europe[@]}";                                      has 'Vatican City'
cp "$folder/answer" "$folder/before"
ask_table index create countries by-continent --fields continent,-name --wait; has 'ready'
ask_table query explain "${europe[@]}"
has 'index by-continent'; has_not 'sort:'; has 'NOT TAKEN'
ask 0 query search "${europe[@]}"
cmp "$folder/before" "$folder/answer" || fail "with an index the answer is another one"
says 'for the next page add --cursor='
cursor=$(sed -n 's/.*--cursor=\([^ ,]*\).*/\1/p' "$folder/said")
ask 0 query search "${europe[@]}" --cursor="$cursor";                   has 'Switzerland'
# shellcheck disable=SC2016 # It is no variable.
ask 0 query search "${europe[@]}" --explain --hint '$natural';          has '"stage":"walk"'
ask 0 query search countries --filter '{"continent":"EU"}' --sort -name --all; lines 52

title "9. Which names, native names and capitals hold the words republic or santo? (the best fit first)"
ask 0 index create countries words --type text --fields name,native,capital --wait
ask 0 query search countries --filter '{"$text":{"$search":"republic santo"}}' --projection '{"name":1,"capital":1}'
[[ $(head -n 1 "$folder/answer") == *'"Dominican Republic"'* ]] || fail "the one with both words is not the first"
ask_table query explain countries --filter '{"$text":{"$search":"republic santo"}}'; has 'index words'

title "10. May two countries have one name? (a unique index, by curl)"
ask 0 index create countries one-name --fields name --unique --wait
ask 0 index conflicts countries one-name;                               has '[]'
add=(curl -sS -o "$folder/answer" -w '%{http_code}' -H 'content-type: application/json'
    -d '{"name":"Iceland"}' "$AEROLITHSDB_URL/api/v1/collections/countries/documents")
show "${add[@]}"
[ "$("${add[@]}")" = 409 ] || fail "a second Iceland was let in"
cat "$folder/answer"; has 'unique index one-name'
ask_table index list countries;                                         has 'unique'

title "What becomes of an answer (a live query, by curl)"
live=(curl -sSN -H 'content-type: application/json' -d '{"filter":{"continent":"AN"},"sort":"name"}'
    "$AEROLITHSDB_URL/api/v1/collections/countries/query?live=true")
show "${live[@]}"
: >"$folder/stream"
"${live[@]}" >"$folder/stream" 2>"$folder/stream.log" &
stream=$!
until_streamed 'event: result'
ask 0 document put countries XX '{"name":"Adelie Land","continent":"AN"}'
until_streamed 'event: enter'
ask 0 document delete countries XX
until_streamed 'event: leave'
kill "$stream"; stream=''
cut -c -160 "$folder/stream"

title "What is wrong is named"
ask 1 query search countries --filter '{"continent":{"$equals":"EU"}}'; says 'continent.$equals'
ask 2 query search countries --filter '{continent: "EU"}';              says 'the filter is no JSON'
ask 0 query count nowhere;                                              says 'no collection nowhere'

title "Cities"
if [ ! -f "$cities" ]; then
    echo "(left out: \$AEROLITHSDB_DATA names no folder with cities.ndjson.gz)"
else
    ask 0 import cities "$cities";                                      has '"failed":0'
    near=(cities --filter '{"location":{"$near":{"lat":64.15,"lng":-21.94,"max_distance_m":20000}}}' --limit 3)
    ask_table query explain "${near[@]}";                               has 'walk:'
    ask 0 query search "${near[@]}"
    has '"name":"Reykjav'
    cp "$folder/answer" "$folder/before"
    ask_table index create cities place --type geo --fields location --wait
    ask_table query explain "${near[@]}";                               has 'index place'
    ask 0 query search "${near[@]}"
    cmp "$folder/before" "$folder/answer" || fail "with an index the nearest are others"
    ask 0 index create cities by-country --fields country,name --wait
    ask_table query explain cities --filter '{"country":"IS"}' --sort name; has 'index by-country'
    ask_table query aggregate cities '[{"$group":{"_id":"$country","cities":{"$sum":1}}},{"$sort":"-cities"},{"$limit":5},
        {"$lookup":{"from":"countries","localField":"_id","foreignField":"_id","as":"country"}},
        {"$unwind":"$country"},{"$project":{"cities":1,"name":"$country.name"}}]'
    lines 6; has 'United States'
fi
printf '\nEvery answer was as expected.\n'
