#!/bin/bash
# Makes a release of the version in Cargo.toml: artifacts with checksums in TARGET/release-X.Y.Z, and an annotated tag. Pushes
# nothing. Usage: release.sh TARGET, from the root of a clean checkout. ARCHITECTURES is what to build, for example x86_64.
set -euo pipefail

target=$1
fail() {
    echo "release: $*" >&2
    exit 1
}

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "invalid version \"$version\" in Cargo.toml: expected X.Y.Z"
[ -z "$(git status --porcelain)" ] || fail "the tree has uncommitted changes: commit or remove them"
! git rev-parse -q --verify "refs/tags/v$version" >/dev/null || fail "the tag v$version exists: choose the next version"
date=$(sed -n "s/^## $version - \([0-9-]*\)$/\1/p" CHANGELOG.md)
[ -n "$date" ] || fail "CHANGELOG.md has no section \"## $version - YYYY-MM-DD\": rename Unreleased"
for manifest in Cargo.toml tests/fuzz/Cargo.toml; do
    error=$(cargo update -q --workspace --locked --manifest-path $manifest 2>&1) || case $error in
    *--locked*) fail "the lock file of $manifest is outdated: run cargo update --workspace --manifest-path $manifest and commit it" ;;
    *) fail "checking the lock file of $manifest failed: $error" ;;
    esac
done
package=$(sed -n 's/^package ochopod:pod@\(.*\);$/\1/p' wit/*.wit)
for file in wit/*.wit; do
    cmp -s "$file" "wit/released/$package/${file##*/}" ||
        fail "$file differs from wit/released/$package: increase the version of the package if that is released, then copy wit/*.wit there"
done

# The same commit results in the same archives.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
output=$target/release-$version
rm -rf "$output"
mkdir -p "$output"
for machine in ${ARCHITECTURES:-x86_64 aarch64}; do
    make image sbom "ARCH=$machine"
    for binary in ochopod ochopod-pilot; do
        install -m 755 "$target/$machine-unknown-linux-musl/release/$binary" "$output/$binary-$version-linux-$machine"
        install -m 644 "$target/sbom/$binary-$machine.cdx.json" "$output/$binary-$version-linux-$machine.cdx.json"
    done
    gzip -9nc "$target/ochopod-image-$machine.tar" >"$output/ochopod-image-$version-$machine.tar.gz"
done
# Without plugins of an earlier build.
rm -rf "$target/plugins"
make plugins
archive() {
    tar --sort=name "--mtime=@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=gnu -c "$@" | gzip -9n
}
archive -C "$target" plugins >"$output/plugins-$version.tar.gz"
archive wit >"$output/wit-$version.tar.gz"
(cd "$output" && sha256sum -- * >SHA256SUMS)
awk -v heading="## $version - " '/^## / { wanted = index($0, heading) == 1 } wanted' CHANGELOG.md >"$output/CHANGES.md"
git tag -a "v$version" -m "ochopod $version"
echo "release $version: artifacts in $output, tag v$version; nothing was pushed"
