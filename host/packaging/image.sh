#!/bin/bash
# Writes a container image of one program on an empty root, without a daemon or a registry: a tar archive that
# `docker load`, `podman load`, `ctr image import` and skopeo read. The same inputs result in the same bytes.
# Usage: image.sh NAME:TAG ARCHITECTURE OUTPUT PROGRAM [SOURCE:TARGET…], where ARCHITECTURE is that of `uname -m`.
set -euo pipefail

fail() {
    echo "image: $*" >&2
    exit 1
}

[ $# -ge 4 ] || fail "usage: image.sh NAME:TAG ARCHITECTURE OUTPUT PROGRAM [SOURCE:TARGET…]"
name=$1 machine=$2 output=$3 program=$4
shift 4
case $machine in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) fail "unknown architecture \"$machine\": expected x86_64 or aarch64" ;;
esac
[[ $name =~ ^[a-z0-9./_-]+:[A-Za-z0-9._-]+$ ]] || fail "invalid name \"$name\": expected NAME:TAG"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root layout=$work/layout
umask 022

# Mount points, which the runtime cannot create on a read-only root, and the directories that a volume may replace.
mkdir -p "$root"/{dev,etc,proc,run,sys,tmp,var/cache/ochopod,var/log} "$layout/blobs/sha256"
chmod 1777 "$root/tmp"
install -m 755 "$program" "$root/ochopod"
for file in "$@"; do
    source=${file%%:*} target=${file#*:}
    [[ $file == *:/* && $target != */../* ]] || fail "invalid file \"$file\": expected SOURCE:/TARGET"
    [ -f "$source" ] || fail "no such file: $source"
    mode=644
    [ ! -x "$source" ] || mode=755
    install -D -m "$mode" "$source" "$root$target"
done
# A program with a loader needs it in the image. Its path is a NUL-terminated text in the first page of the program.
loader=$(LC_ALL=C head -c 4096 "$program" | tr '\0' '\n' | grep -aoE '^/[a-zA-Z0-9_/.-]*ld-[a-zA-Z0-9_.-]+$' | head -1 || true)
[ -z "$loader" ] || [ -e "$root$loader" ] || fail "$program is not static: it needs $loader; run make build"

# Adds a file to the layout under its digest, and prints the digest.
blob() {
    local digest
    digest=$(sha256sum "$1" | cut -d ' ' -f 1)
    mv "$1" "$layout/blobs/sha256/$digest"
    echo "$digest"
}
size() { stat -c %s "$layout/blobs/sha256/$1"; }
reproducible=(--sort=name "--mtime=@${SOURCE_DATE_EPOCH:-0}" --numeric-owner --format=gnu)
created=$(date -u -d "@${SOURCE_DATE_EPOCH:-0}" +%Y-%m-%dT%H:%M:%SZ)

# The cache belongs to the user of the image, so that a volume made from it does too.
user=65532
tar -C "$root" "${reproducible[@]}" --owner=0 --group=0 -cf "$work/layer" --exclude=./var/cache/ochopod .
tar -C "$root" "${reproducible[@]}" --owner=$user --group=$user --mode=700 -rf "$work/layer" ./var/cache/ochopod
layer=$(blob "$work/layer")
cat >"$work/config" <<JSON
{"created":"$created","architecture":"$architecture","os":"linux","config":{"User":"$user:$user",\
"ExposedPorts":{"8080/tcp":{}},"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],\
"Entrypoint":["/ochopod"],"Cmd":["--help"],"WorkingDir":"/","StopSignal":"SIGTERM",\
"Labels":{"org.opencontainers.image.title":"${name%:*}","org.opencontainers.image.version":"${name##*:}",\
"org.opencontainers.image.licenses":"Apache-2.0"}},\
"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},\
"history":[{"created":"$created","created_by":"image.sh"}]}
JSON
config=$(blob "$work/config")
cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",\
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$(size "$config")},\
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:$layer","size":$(size "$layer")}]}
JSON
manifest=$(blob "$work/manifest")
cat >"$layout/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[\
{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$(size "$manifest"),\
"platform":{"architecture":"$architecture","os":"linux"},\
"annotations":{"io.containerd.image.name":"docker.io/library/$name","org.opencontainers.image.ref.name":"${name##*:}"}}]}
JSON
echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
# What Docker before version 25 reads.
echo "[{\"Config\":\"blobs/sha256/$config\",\"RepoTags\":[\"$name\"],\"Layers\":[\"blobs/sha256/$layer\"]}]" >"$layout/manifest.json"
mkdir -p "$(dirname "$output")"
tar -C "$layout" "${reproducible[@]}" --owner=0 --group=0 -cf "$output" blobs index.json manifest.json oci-layout
echo "image $name ($architecture): $output, load it with docker load -i $output"
