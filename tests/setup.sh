#!/bin/bash
# Installs the Debian packages that are missing: setup.sh demo (to build and run the demo) or setup.sh all (tests too).
# Needs root or sudo without a password, only if something is missing.
set -euo pipefail

missing=
# need PACKAGE CHECK…: adds the package if the check fails.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=" $package"
}

need curl command -v curl
need gcc command -v cc
if [ "$1" = all ]; then
    need zookeeper test -e /usr/share/java/zookeeper.jar
    need default-jre-headless command -v java
    need redis-server command -v redis-server
    need redis-tools command -v redis-cli
    need musl-tools command -v musl-gcc
    need util-linux command -v setpriv
    need etcd-server command -v etcd
    need etcd-client command -v etcdctl
    need prometheus command -v prometheus
    need nginx-light test -x /usr/sbin/nginx
fi
[ -n "$missing" ] || exit 0

as=
[ "$(id -u)" = 0 ] || as="sudo -n"
if ! command -v apt-get >/dev/null || ! $as true 2>/dev/null; then
    echo "missing:$missing; install these Debian packages, or their equivalents on this system" >&2
    exit 1
fi
echo "installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
{
    $as apt-get -qq update
    $as env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing
} >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
