# HAProxy in front of the step web, and of the primary of the step patroni if that was run.
[ -v web_port ] || fail "the step haproxy needs the step web"
say "haproxy: a balancer in front of the cluster web"
haproxy_data=$scratch/haproxy-data
haproxy_port=$(free_port)
haproxy_routes="$haproxy_port=http://web:$web_port?check=/health"
haproxy_clusters=web
if [ -v patroni_rest ]; then
    haproxy_sql_port=$(free_port)
    haproxy_routes+=" $haproxy_sql_port=tcp://patroni:5432?role=primary"
    haproxy_clusters+=,patroni
fi
mkdir -p "$haproxy_data"
ochopod_haproxy_dir=$haproxy_data ochopod_haproxy_routes=$haproxy_routes ochopod_set_depends_on=$haproxy_clusters \
    ochopod_haproxy_runtime_port=$(free_port) ochopod_haproxy_master_port=$(free_port) \
    pod haproxy balancer haproxy --dir "$haproxy_data::/data"
until_ok "two servers" has_status "port $haproxy_port: 2 of 2 servers up" haproxy
show haproxy

# Requests without a pause, each on a connection of its own. Failures are counted in a file.
haproxy_url=http://${addresses[haproxy]}:$haproxy_port/
haproxy_load() {
    local replies=0 failures=0
    while ! [ -e "$scratch/haproxy-stop" ]; do
        if curl -fsS -m 5 -o /dev/null "$haproxy_url" 2>>"$scratch/haproxy/log"; then
            replies=$((replies + 1))
        else
            failures=$((failures + 1))
        fi
    done
    echo "$replies replies, $failures failures" >"$scratch/haproxy-load"
}
haproxy_load &
pids[haproxy-load]=$!

say "haproxy: four more web servers join under load, and four leave"
for web_name in web-3 web-4 web-5 web-6; do web_pod $web_name; done
until_ok "six servers" has_status "port $haproxy_port: 6 of 6 servers up" haproxy
show haproxy
stop web-3 web-4 web-5 web-6
until_ok "two servers" has_status "port $haproxy_port: 2 of 2 servers up" haproxy
show haproxy
touch "$scratch/haproxy-stop"
wait "${pids[haproxy-load]}"
unset "pids[haproxy-load]"
cat "$scratch/haproxy-load"
grep -q ' 0 failures' "$scratch/haproxy-load" || fail "requests failed"

if [ -v haproxy_sql_port ]; then
    say "haproxy: the primary of PostgreSQL, which it follows"
    haproxy_sql() {
        PGPASSWORD=demo "$postgresql/psql" -tA \
            "host=${addresses[haproxy]} port=$haproxy_sql_port user=postgres connect_timeout=2" -c "$1"
    }
    haproxy_is_primary() { [ "$(haproxy_sql 'select pg_is_in_recovery()')" = f ]; }
    until_ok "the primary answers" haproxy_is_primary
    haproxy_sql "insert into demo values ('by the balancer')"
fi
