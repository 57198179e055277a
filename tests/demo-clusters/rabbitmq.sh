# RabbitMQ. All pods share the machine, so they share a port mapper.
say "rabbitmq: the oldest pod forms a cluster, and the others join it"
rabbitmq_programs=/usr/lib/rabbitmq/bin
rabbitmq_data=$scratch/rabbitmq-data
rabbitmq_home=$scratch/rabbitmq-home
mkdir -p "$rabbitmq_data" "$rabbitmq_home"
(umask 277 && echo demo >"$rabbitmq_home/.erlang.cookie")
rabbitmq_port=$(free_port)
rabbitmq_mapper_port=$(free_port)
launch epmd epmd -port "$rabbitmq_mapper_port"

rabbitmq_pod() {
    PATH=$rabbitmq_programs:$PATH HOME=$rabbitmq_home ERL_EPMD_PORT=$rabbitmq_mapper_port \
        PORT_5672=$rabbitmq_port PORT_25672=$(free_port) ochopod_set_probe_every=5 \
        ochopod_rabbitmq_dir=$rabbitmq_data ochopod_rabbitmq_forget_after=10 \
        pod "$1" rabbitmq rabbitmq --net peers --run rabbitmqctl --dir "$rabbitmq_data::/data"
}

for rabbitmq_name in rabbitmq-1 rabbitmq-2 rabbitmq-3; do rabbitmq_pod $rabbitmq_name; done
until_ok "three nodes" has_status "3 of 3 nodes running" rabbitmq-1 rabbitmq-2 rabbitmq-3
show rabbitmq-1 rabbitmq-2 rabbitmq-3

say "rabbitmq: a pod crashes for good, and its node is removed"
crash rabbitmq-3
until_ok "two nodes" has_status "2 of 2 nodes running" rabbitmq-1 rabbitmq-2
show rabbitmq-1 rabbitmq-2

stop rabbitmq-1 rabbitmq-2
kill "${pids[epmd]}"
wait "${pids[epmd]}" 2>/dev/null || true
unset "pids[epmd]"
