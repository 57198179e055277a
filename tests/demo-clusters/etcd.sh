# etcd: members are added and removed as pods join and leave.
say "etcd: three pods form a cluster, and a fourth becomes a member"
etcd_data=$scratch/etcd-data
mkdir -p "$etcd_data"
etcd_client_port=$(free_port)
etcd_peer_port=$(free_port)

etcd_pod() {
    ochopod_etcd_client_port=$etcd_client_port ochopod_etcd_peer_port=$etcd_peer_port ochopod_etcd_dir=$etcd_data \
        pod "$1" etcd etcd --run etcdctl --net peers --dir "$etcd_data::/data"
}

for etcd_name in etcd-1 etcd-2 etcd-3; do etcd_pod $etcd_name; done
until_ok "three members" has_status "3 of 3 members healthy" etcd-1 etcd-2 etcd-3
etcdctl --endpoints="${addresses[etcd-1]}:$etcd_client_port" put demo kept >/dev/null
etcd_pod etcd-4
until_ok "four members" has_status "4 of 4 members healthy" etcd-1 etcd-2 etcd-3 etcd-4
show etcd-1 etcd-2 etcd-3 etcd-4

say "etcd: a pod crashes, and its member is removed"
crash etcd-1
until_ok "three members again" has_status "3 of 3 members healthy" etcd-2 etcd-3 etcd-4
show etcd-2 etcd-3 etcd-4
etcd_text=$(etcdctl --endpoints="${addresses[etcd-4]}:$etcd_client_port" get demo --print-value-only)
[ "$etcd_text" = kept ] || fail "the data is lost"
stop etcd-2 etcd-3 etcd-4
