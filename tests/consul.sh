#!/bin/sh
# Fetches Debian 11's package consul, a real agent, and extracts it below a directory: tests/consul.sh DIRECTORY
#
# apt uses lists and sources of its own there: those of the machine stay unchanged, and nothing is installed. If the
# package is not available, this is printed, and the tests that need it are skipped.
set -eu

mkdir -p "$1"
directory=$(cd "$1" && pwd)
program=$directory/usr/bin/consul
suite=bullseye
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Does not retry for a day: without a network, an attempt may take a while.
skip() {
    echo "no Consul: $1; tests against a real agent are skipped" | tee "$directory/skipped" >&2
    exit 0
}

# Prints the machine's configured mirrors of the main archive of Debian, from both formats of sources.
mirrors() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        grep -E '^[[:space:]]*(deb[[:space:]]|URIs:)' | grep -oE '[a-z+]+://[^[:space:]]+/debian/?([[:space:]]|$)' | sort -u
}

[ ! -x "$program" ] || exit 0
if [ -n "$(find "$directory/skipped" -mtime -1 2>/dev/null)" ]; then
    cat "$directory/skipped" >&2
    exit 0
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || skip "apt-get or dpkg-deb not found"
[ -r "$keyring" ] || skip "$keyring not found"
mirrors=$(mirrors)
[ -n "$mirrors" ] || skip "no mirror of Debian in the sources of apt"

apt=$(mktemp -d "$directory/apt.XXXXXX")
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/state"
for mirror in $mirrors; do
    echo "deb [signed-by=$keyring] $mirror $suite main"
done >"$apt/sources.list"

private() {
    apt-get -qq -o Dir::State="$apt/state" -o Dir::State::Lists="$apt/lists" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$apt/cache" -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=1 -o Acquire::http::Timeout=20 "$@"
}

private update >"$apt/log" 2>&1 || skip "cannot list $suite: $(tail -n 1 "$apt/log")"
(cd "$apt" && private download consul) >"$apt/log" 2>&1 || skip "cannot fetch the package: $(tail -n 1 "$apt/log")"
dpkg-deb -x "$apt"/consul_*.deb "$apt/root" || skip "cannot extract the package"
cp -a "$apt/root/." "$directory/"
rm -f "$directory/skipped"
"$program" version >"$apt/log" 2>&1 || { rm -f "$program"; skip "the agent does not run: $(tail -n 1 "$apt/log")"; }
echo "fetched $(head -n 1 "$apt/log") to $directory"
