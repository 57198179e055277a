# The leader of the ensemble and the primary of PostgreSQL crash together, while HAProxy serves.
[ -v haproxy_sql_port ] || fail "the step failover needs the steps zookeeper, patroni, web and haproxy"
say "failover: PostgreSQL has three servers again"
patroni_pod patroni-4
failover_pods=("${patroni_rest[@]}" patroni-4)
until_ok "two replicas" has_status "2 of 2 replicas" "${failover_pods[@]}"
failover_primary=$(primary_of "${failover_pods[@]}")
for failover_voter in "${zookeeper_pods[@]}"; do
    [ "$(info role "$failover_voter")" != leader ] || failover_leader=$failover_voter
done
show "${failover_pods[@]}" "${zookeeper_pods[@]}"

rm -f "$scratch/haproxy-stop"
haproxy_load &
pids[haproxy-load]=$!
say "failover: $failover_leader, which leads the ensemble, and $failover_primary, the primary, crash under load"
failover_started=$SECONDS
failover_data=$patroni_data/postgres-${addresses[$failover_primary]}-$patroni_port
failover_server=$(head -1 "$failover_data/postmaster.pid")
crash "$failover_leader"
crash "$failover_primary"
# It has a session of its own, and would outlive its pod.
kill -KILL "$failover_server"

failover_left() {
    local name
    for name in "$@"; do
        [ "$name" = "$failover_leader" ] || [ "$name" = "$failover_primary" ] || echo "$name"
    done
}
mapfile -t failover_rest < <(failover_left "${failover_pods[@]}")
mapfile -t failover_voters < <(failover_left "${zookeeper_pods[@]}")
until_ok "another primary" has_primary "${failover_rest[@]}"
failover_insert() { haproxy_sql "insert into demo values ('after the failover')"; }
until_ok "the new primary accepts a write through HAProxy" failover_insert
echo "PostgreSQL accepts writes again after $((SECONDS - failover_started)) s"
until_ok "two voters" has_status "2 of 2 servers" "${failover_voters[@]}"
zookeeper_cli "${failover_voters[0]}" get /demo | grep -qx kept || fail "the data of ZooKeeper is lost"
[ "$(haproxy_sql "select count(*) from demo where text in ('kept', 'by the balancer')")" = 2 ] ||
    fail "the data of PostgreSQL is lost"

say "failover: another pod joins the ensemble, and the configurations of PostgreSQL continue"
zookeeper_pod zookeeper-6
failover_voters+=(zookeeper-6)
until_ok "three voters" has_status "2 followers synced" "${failover_voters[@]}"
until_ok "one replica" has_status "1 of 1 replicas" "${failover_rest[@]}"
show "${failover_rest[@]}" "${failover_voters[@]}" haproxy
touch "$scratch/haproxy-stop"
wait "${pids[haproxy-load]}"
unset "pids[haproxy-load]"
cat "$scratch/haproxy-load"
grep -q ' 0 failures' "$scratch/haproxy-load" || fail "requests failed"
