# An ensemble of ZooKeeper. It keeps running: the cluster zookeeper, for steps that depend on it.
say "zookeeper: three pods form an ensemble"
zookeeper_data=$scratch/zookeeper-data
zookeeper_jaas=$scratch/zookeeper.jaas
zookeeper_ports=("$(free_port)" "$(free_port)" "$(free_port)")
mkdir -p "$zookeeper_data"
(umask 077 && cat >"$zookeeper_jaas") <<EOF
Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_super="demo"; };
Client { org.apache.zookeeper.server.auth.DigestLoginModule required username="super" password="demo"; };
EOF

zookeeper_pod() {
    PORT_2181=${zookeeper_ports[0]} PORT_2888=${zookeeper_ports[1]} PORT_3888=${zookeeper_ports[2]} \
        ochopod_zookeeper_dir=$zookeeper_data ochopod_zookeeper_jaas=$zookeeper_jaas ochopod_zookeeper_tick=500 \
        ochopod_zookeeper_java="-Xmx96m -XX:+UseSerialGC -XX:TieredStopAtLevel=1" ochopod_set_check_every=1 \
        pod "$1" zookeeper zookeeper --net peers --run java --dir "$zookeeper_data::/data"
}

# zookeeper_cli NAME WORD…: runs a command on the server of a pod.
zookeeper_cli() {
    local name=$1
    shift
    java -Xmx64m -XX:TieredStopAtLevel=1 -cp /usr/share/java/zookeeper.jar org.apache.zookeeper.ZooKeeperMain \
        -server "${addresses[$name]}:${zookeeper_ports[0]}" "$@" 2>/dev/null
}

zookeeper_pods=(zookeeper-1 zookeeper-2 zookeeper-3)
for zookeeper_name in "${zookeeper_pods[@]}"; do zookeeper_pod "$zookeeper_name"; done
until_ok "three voters" has_status "2 followers synced" "${zookeeper_pods[@]}"
show "${zookeeper_pods[@]}"
zookeeper_cli zookeeper-1 create /demo kept >/dev/null

say "zookeeper: two more pods join, and become voters one at a time"
for zookeeper_name in zookeeper-4 zookeeper-5; do zookeeper_pod "$zookeeper_name"; done
until_ok "five voters" has_status "4 followers synced" "${zookeeper_pods[@]}" zookeeper-4 zookeeper-5
show "${zookeeper_pods[@]}" zookeeper-4 zookeeper-5

say "zookeeper: both leave, and are voters no longer"
stop zookeeper-4 zookeeper-5
until_ok "three voters again" has_status "2 followers synced" "${zookeeper_pods[@]}"
zookeeper_cli zookeeper-2 config | grep '^server'
zookeeper_cli zookeeper-3 get /demo | grep -qx kept || fail "the data is lost"
