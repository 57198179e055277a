# nginx, each pod with a page that lists all of them. The pods keep running: the cluster web.
say "web: two nginx servers"
PATH=$PATH:/usr/sbin
web_data=$scratch/web-data
web_port=$(free_port)
mkdir -p "$web_data"

web_pod() {
    ochopod_web_dir=$web_data ochopod_web_port=$web_port ochopod_leave_delay=10 \
        pod "$1" web web --dir "$web_data::/data"
}

web_lists() { [ "$(curl -fsS -m 2 "${addresses[$1]}:$web_port" 2>/dev/null | grep -c '<li>')" = "$2" ]; }

for web_name in web-1 web-2; do web_pod $web_name; done
until_ok "both are listed" web_lists web-1 2
form web-1 web-2
curl -fsS "${addresses[web-1]}:$web_port"
