#!/bin/bash
# Writes a software bill of materials (CycloneDX 1.5, JSON) of each release binary: every crate in it, with version, licence,
# package URL and checksum. Usage: sbom.sh TARGET OUTPUT, from the root of a checkout. Needs cargo-cyclonedx.
set -euo pipefail

[ $# = 2 ] || {
    echo "sbom: usage: sbom.sh TARGET OUTPUT" >&2
    exit 1
}
target=$1 output=$2
# cargo-cyclonedx writes a file next to each manifest, so it works on a copy of the tracked files.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null --files-from - --create | tar -x -C "$copy"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

mkdir -p "$output"
for manifest in host host/crates/pilot-command; do
    cargo cyclonedx -qq --format json --spec-version 1.5 --target "$target" --no-build-deps --override-filename sbom \
        --manifest-path "$copy/$manifest/Cargo.toml"
    case $manifest in
        host) binary=ochopod ;;
        *) binary=ochopod-pilot ;;
    esac
    file=$output/$binary-${target%%-*}.cdx.json
    # The copy has another path each time.
    sed "s|$copy|.|g" "$copy/$manifest/sbom.json" >"$file"
    echo "sbom of $binary: $(grep -c '"purl": "pkg:cargo/' "$file") packages, in $file"
done
