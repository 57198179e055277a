# PostgreSQL with Patroni, on the ensemble of the step zookeeper. PostgreSQL refuses to run as root.
say "patroni: three PostgreSQL servers elect their primary in the cluster zookeeper"
patroni_data=$scratch/patroni-data
patroni_flags=(--net peers --run pg_ctl --dir "$patroni_data::/data")
if [ "$(id -u)" = 0 ]; then
    install -d -m 700 -o postgres "$patroni_data"
    patroni_flags+=(--user postgres)
else
    mkdir -m 700 "$patroni_data"
fi
postgresql=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1)
patroni_port=$(free_port)
patroni_api_port=$(free_port)

patroni_pod() {
    PATH=$postgresql:$PATH PORT_5432=$patroni_port PORT_8008=$patroni_api_port \
        ochopod_patroni_dir=$patroni_data ochopod_patroni_ttl=6 \
        ochopod_secret_PATRONI_SUPERUSER_PASSWORD=demo ochopod_secret_PATRONI_REPLICATION_PASSWORD=demo \
        pod "$1" patroni patroni "${patroni_flags[@]}"
}

# Prints the pod among these that is the primary.
primary_of() {
    local name
    for name in "$@"; do [ "$(info role "$name")" != primary ] || echo "$name"; done
}

sql() {
    PGPASSWORD=demo "$postgresql/psql" -tA "host=${addresses[$1]} port=$patroni_port user=postgres connect_timeout=2" -c "$2"
}

has_primary() { [ -n "$(primary_of "$@")" ]; }

for patroni_name in patroni-1 patroni-2 patroni-3; do patroni_pod $patroni_name; done
until_ok "PostgreSQL replicates" has_status "2 of 2 replicas" patroni-1 patroni-2 patroni-3
until_ok "a pod publishes the role primary" has_primary patroni-1 patroni-2 patroni-3
show patroni-1 patroni-2 patroni-3
patroni_primary=$(primary_of patroni-1 patroni-2 patroni-3)
sql "$patroni_primary" 'create table demo (text text)' >/dev/null
sql "$patroni_primary" "insert into demo values ('kept')" >/dev/null

say "patroni: a switchover, requested by a signal to any pod"
curl -fsS -X POST "${addresses[patroni-1]}:$port/control/signal" -d '{"switchover": true}'
echo
until_ok "PostgreSQL replicates again" has_status "2 of 2 replicas" patroni-1 patroni-2 patroni-3
until_ok "a pod publishes the role primary" has_primary patroni-1 patroni-2 patroni-3

patroni_primary=$(primary_of patroni-1 patroni-2 patroni-3)
patroni_rest=()
for patroni_name in patroni-1 patroni-2 patroni-3; do
    [ "$patroni_name" = "$patroni_primary" ] || patroni_rest+=("$patroni_name")
done
say "patroni: its primary $patroni_primary stops, and another takes over"
stop "$patroni_primary"
until_ok "another primary" has_primary "${patroni_rest[@]}"
until_ok "one replica" has_status "1 of 1 replicas" "${patroni_rest[@]}"
show "${patroni_rest[@]}"
[ "$(sql "$(primary_of "${patroni_rest[@]}")" 'select text from demo')" = kept ] || fail "the data is lost"
