#!/bin/bash
# Demo of real clusters: one step per file of demo-clusters/. All pods share one ZooKeeper, on loopback.
# Usage: demo-clusters.sh OCHOPOD PLUGINS [STEP…]. Exits with code 0 and leaves no process or file behind.
#
# A step uses the functions below. Names of pods are unique: NAME is also the pod's directory, with its log, below $scratch.
set -euo pipefail

ochopod=$(realpath "$1")
plugins=$(realpath "$2")
shift 2
steps=("$@")
# In this order: later steps use the clusters of earlier ones.
[ $# -gt 0 ] || steps=(zookeeper patroni web haproxy failover rabbitmq etcd)
limit=180

scratch=$(mktemp -d)
# Servers that run as another user search this directory.
chmod 755 "$scratch"
# Process ids of servers and of pods by name.
declare -A pids=()
# Address of each pod, by name.
declare -A addresses=()
next_address=2

leave() {
    local pid
    for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait "${pids[@]}" 2>/dev/null || true
    rm -rf "$scratch"
}
trap leave EXIT

fail() {
    local log
    echo "demo: $*" >&2
    for log in "$scratch"/*/log; do
        echo "--- $(basename "$(dirname "$log")")" >&2
        tail -20 "$log" >&2
    done
    exit 1
}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# Prints a port that is free on 127.0.0.1 to 127.0.0.31. Later calls print others.
free_port() {
    local port host taken
    while read -r port; do
        ! grep -qx "$port" "$scratch/ports" 2>/dev/null || continue
        taken=
        for host in $(seq 1 31); do
            if (exec 3<>"/dev/tcp/127.0.0.$host/$port") 2>/dev/null; then
                taken=yes
                break
            fi
        done
        [ -n "$taken" ] || {
            echo "$port" >>"$scratch/ports"
            echo "$port"
            return
        }
    done < <(shuf -i 10000-29999 -n 50)
    return 1
}

# launch NAME COMMAND…: starts a process whose output goes to its log.
launch() {
    local name=$1
    shift
    mkdir -p "$scratch/$name"
    (cd "$scratch/$name" && exec "$@") >>"$scratch/$name/log" 2>&1 </dev/null &
    pids[$name]=$!
}

# pod NAME CLUSTER PLUGIN FLAG…: starts a pod at the next address. Variables PORT_<n> and ochopod_* of the caller apply.
pod() {
    local name=$1 cluster=$2 plugin=$3
    shift 3
    addresses[$name]=127.0.0.$next_address
    next_address=$((next_address + 1))
    ochopod_local=true ochopod_ip=${addresses[$name]} ochopod_public=${addresses[$name]} ochopod_port=$port \
        ochopod_zk=$zk ochopod_cluster=$cluster ochopod_cache=$scratch/cache \
        launch "$name" "$ochopod" run "$plugins/$plugin.wasm" "$@"
}

# stop NAME…: stops pods as a platform does, and waits until they have left.
stop() {
    local name
    for name in "$@"; do kill -TERM "${pids[$name]}"; done
    for name in "$@"; do
        wait "${pids[$name]}" || fail "$name exited with code $?"
        unset "pids[$name]"
    done
}

# crash NAME: kills a pod as a power failure does.
crash() {
    kill -KILL "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
    unset "pids[$1]"
}

# info KEY NAME: prints one key of a pod's /info.
info() {
    curl -fsS -m 2 -X POST "${addresses[$2]}:$port/info" 2>/dev/null |
        python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1]))' "$1" 2>/dev/null || true
}

# until_ok WHAT COMMAND…: repeats the command until it succeeds.
until_ok() {
    local what=$1 deadline=$((SECONDS + limit))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "$what: not within $limit s"
        sleep 0.2
    done
}

# is_formed NAME…: whether all of these pods run, and one leads a configured cluster.
is_formed() {
    local name leaders=0
    for name in "$@"; do
        [ "$(info process "$name")" = running ] || return 1
        [ "$(info state "$name")" != leader ] || leaders=$((leaders + 1))
    done
    [ $leaders = 1 ]
}

form() { until_ok "pods $* form a cluster" is_formed "$@"; }

# has_status TEXT NAME…: whether the status of one of these pods contains the text.
has_status() {
    local text=$1 name
    shift
    for name in "$@"; do
        case $(info status "$name") in *"$text"*) return 0 ;; esac
    done
    return 1
}

show() {
    local name
    for name in "$@"; do
        printf '  %-14s %-11s %-8s %-10s %s\n' "$name" "${addresses[$name]}" "$(info process "$name")" "$(info state "$name")" \
            "$(info status "$name")"
    done
}

port=$(free_port) || fail "no free port"
zk_port=$(free_port) || fail "no free port"
zk=127.0.0.1:$zk_port

# The ZooKeeper in which all pods of the demo register.
mkdir -p "$scratch/coordination"
cat >"$scratch/coordination/zoo.cfg" <<EOF
dataDir=$scratch/coordination/data
clientPort=$zk_port
clientPortAddress=127.0.0.1
tickTime=500
minSessionTimeout=1000
admin.enableServer=false
4lw.commands.whitelist=ruok
EOF
launch coordination java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp /usr/share/java/zookeeper.jar \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$scratch/coordination/zoo.cfg"
answers() { [ "$( (exec 3<>"/dev/tcp/127.0.0.1/$zk_port" && printf ruok >&3 && cat <&3) 2>/dev/null)" = imok ]; }
until_ok "ZooKeeper answers at $zk" answers

for step in "${steps[@]}"; do
    file=$(dirname "$0")/demo-clusters/$step.sh
    [ -e "$file" ] || {
        echo "demo: unknown step \"$step\", expected a file of demo-clusters/" >&2
        exit 64
    }
    # shellcheck source=/dev/null
    . "$file"
done
running=()
for name in "${!pids[@]}"; do [ "$name" = coordination ] || running+=("$name"); done
[ ${#running[@]} = 0 ] || stop "${running[@]}"
say "done"
