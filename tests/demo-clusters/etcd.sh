# A cluster of etcd: members follow the pods.
say "etcd: three members"
etcd_data=$scratch/etcd-data
etcd_client_port=$(free_port)
etcd_peer_port=$(free_port)
mkdir -p "$etcd_data"

etcd_pod() {
    ochopod_etcd_dir=$etcd_data ochopod_etcd_client_port=$etcd_client_port ochopod_etcd_peer_port=$etcd_peer_port \
        pod "$1" etcd etcd --net peers --run etcdctl --dir "$etcd_data::/data"
}

for etcd_name in etcd-1 etcd-2 etcd-3; do etcd_pod $etcd_name; done
until_ok "three members" has_status "3 of 3 members healthy" etcd-1 etcd-2 etcd-3

say "etcd: a fourth pod joins, and another leaves"
etcd_pod etcd-4
until_ok "four members" has_status "4 of 4 members healthy" etcd-1 etcd-2 etcd-3 etcd-4
stop etcd-1
until_ok "three members" has_status "3 of 3 members healthy" etcd-2 etcd-3 etcd-4
show etcd-2 etcd-3 etcd-4
