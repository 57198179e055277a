#!/bin/bash
# Installs the Debian packages that are missing: setup.sh build (for the release build), setup.sh demo (to build and run the
# demo), setup.sh all (for both and the tests), or setup.sh clusters (the servers of all real clusters too). Starts no system
# service, and leaves none enabled.
# Needs root or sudo without a password, only if something is missing.
set -euo pipefail

missing=
# need PACKAGE CHECK…: adds the package if the check fails.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=" $package"
}

need gcc command -v cc
[ "$1" = demo ] || need musl-tools command -v musl-gcc
[ "$1" = build ] || need curl command -v curl
if [ "$1" = all ] || [ "$1" = clusters ]; then
    need zookeeper test -e /usr/share/java/zookeeper.jar
    need default-jre-headless command -v java
    need redis-server command -v redis-server
    need redis-tools command -v redis-cli
    need util-linux command -v setpriv
    need etcd-server command -v etcd
    need etcd-client command -v etcdctl
    need prometheus command -v prometheus
    need nginx-light test -x /usr/sbin/nginx
    need haproxy test -x /usr/sbin/haproxy
fi
if [ "$1" = clusters ]; then
    need postgresql compgen -G '/usr/lib/postgresql/*/bin/postgres'
    need patroni command -v patroni
    need python3-kazoo /usr/bin/python3 -c 'import kazoo'
    need rabbitmq-server test -e /usr/lib/rabbitmq/bin/rabbitmq-server
fi
[ -n "$missing" ] || exit 0

as=
[ "$(id -u)" = 0 ] || as="sudo -n"
if ! command -v apt-get >/dev/null || ! $as true 2>/dev/null; then
    echo "missing:$missing; install these Debian packages, or their equivalents on this system" >&2
    exit 1
fi
echo "installing$missing"
scratch=$(mktemp -d)
log=$scratch/log
# Debian starts no service while this program forbids it. One that the operator has stays.
policy=/usr/sbin/policy-rc.d
created=
leave() {
    [ -z "$created" ] || $as rm -f "$policy"
    rm -rf "$scratch"
}
trap leave EXIT
if ! [ -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$scratch/policy"
    created=yes
    $as install -m 755 "$scratch/policy" "$policy"
fi
# Services that are enabled, one a line. Those that are enabled afterwards were enabled by the packages.
enabled() {
    if command -v systemctl >/dev/null; then
        systemctl list-unit-files --no-legend --state=enabled 2>/dev/null | awk '{ print $1 }' | sort
    fi
}
enabled >"$scratch/before"
# postgresql creates a cluster of its own unless this file forbids it.
main=/etc/postgresql-common/createcluster.conf
case $missing in
    *" postgresql"*)
        if ! [ -e "$main" ]; then
            echo 'create_main_cluster = false' >"$scratch/main"
            $as install -D -m 644 "$scratch/main" "$main"
        fi
        ;;
esac
install_missing() {
    $as apt-get -qq update || return
    # shellcheck disable=SC2086
    $as env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing || return
    for unit in $(enabled | comm -13 "$scratch/before" -); do $as systemctl -q disable "$unit" || return; done
}
install_missing >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
