#!/bin/bash
# Demo: three pods form a cluster, a fourth joins, the leader is killed, another takes over, all shut down.
# Usage: demo.sh OCHOPOD PLUGIN. Exits with code 0 and leaves no process or file behind.
set -euo pipefail

ochopod=$1
plugin=$2
limit=15

scratch=$(mktemp -d)
host=
leave() {
    [ -z "$host" ] || kill -KILL "$host" 2>/dev/null || true
    rm -rf "$scratch"
}
trap leave EXIT

fail() {
    echo "demo: $*" >&2
    cat "$scratch/log" >&2
    exit 1
}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# A port that is free on every address that the pods will have.
free_port() {
    local port address taken
    for port in $(shuf -i 10000-29999 -n 50); do
        taken=
        for address in 2 3 4 5; do
            if (exec 3<>"/dev/tcp/127.0.0.$address/$port") 2>/dev/null; then taken=yes; fi
        done
        [ -n "$taken" ] || { echo "$port"; return; }
    done
    return 1
}

# Prints one key of a pod's /info: key, last number of the pod's address.
info() {
    curl -fsS -m 2 -X POST "127.0.0.$2:$port/info" 2>/dev/null | sed -nE "s/.*\"$1\": ?\"?([^\",}]*).*/\1/p"
}

# Pod 1 is at 127.0.0.2.

# Waits until all of these pods run and exactly one leads a configured cluster: its number is in `leader`.
form() {
    local pod leaders deadline=$((SECONDS + limit))
    while [ $SECONDS -lt $deadline ]; do
        sleep 0.05
        leaders=()
        for pod in "$@"; do
            [ "$(info process "$pod")" = running ] || continue 2
            [ "$(info state "$pod")" != leader ] || leaders+=("$pod")
        done
        if [ ${#leaders[@]} = 1 ]; then leader=${leaders[0]}; return; fi
    done
    fail "pods $* did not form one cluster within $limit s"
}

show() {
    local pod
    for pod in "$@"; do
        printf '  127.0.0.%s  process %-8s  %s\n' "$pod" "$(info process "$pod")" "$(info state "$pod")"
    done
}

port=$(free_port) || fail "no free port"
mkfifo "$scratch/commands"

say "ochopod up $(basename "$plugin") --pods 3"
"$ochopod" up "$plugin" --pods 3 --port "$port" <"$scratch/commands" >"$scratch/log" 2>&1 &
host=$!
exec 4>"$scratch/commands"
form 2 3 4
show 2 3 4
first=$leader

say "add: a fourth pod joins, no sub-process restarts"
echo add >&4
form 2 3 4 5
show 2 3 4 5

say "kill $((first - 1)): the leader crashes, another takes over"
echo "kill $((first - 1))" >&4
rest=()
for pod in 2 3 4 5; do [ "$pod" = "$first" ] || rest+=("$pod"); done
form "${rest[@]}"
[ "$leader" != "$first" ] || fail "the killed pod still leads"
show "${rest[@]}"

say "curl -X POST 127.0.0.$leader:$port/info"
curl -fsS -X POST "127.0.0.$leader:$port/info"
echo

say "quit: all pods shut down"
echo quit >&4
exec 4>&-
code=0
wait "$host" || code=$?
host=
[ $code = 0 ] || fail "exited with code $code"
for pod in "${rest[@]}"; do
    if curl -s -m 1 "127.0.0.$pod:$port/info" >/dev/null; then fail "127.0.0.$pod still answers"; fi
done
say "done"
