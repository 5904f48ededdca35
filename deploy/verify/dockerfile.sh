#!/usr/bin/env bash
# Builds the image with both stages of the Dockerfile, where no registry can be asked:
# a Debian (ROOT, as nspawn.sh makes it) with this machine's Go and its caches stands in
# for the image golang. Needs root and buildah; leaves no image behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=${ROOT:?}
work=$(mktemp -d)
store=(buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs)
trap '"${store[@]}" rm -a >/dev/null 2>&1; "${store[@]}" rmi -af >/dev/null 2>&1; rm -rf "$work"' EXIT
base=$(awk '/^FROM .* AS build$/ { print $(NF - 2) }' deploy/docker/Dockerfile)

c=$("${store[@]}" from scratch)
m=$("${store[@]}" mount "$c")
cp -a "$root/." "$m"
mkdir -p "$m/usr/local"
cp -a "$(go env GOROOT)" "$m/usr/local/go"
"${store[@]}" config --env PATH=/usr/local/go/bin:/usr/bin:/bin --env GOPATH=/go --env GOTOOLCHAIN=local "$c"
"${store[@]}" umount "$c" >/dev/null
"${store[@]}" commit -q "$c" "docker.io/library/$base" >/dev/null

mkdir "$work/context"
git archive HEAD | tar -x -C "$work/context"
"${store[@]}" build --isolation chroot --pull=never --format docker -t localhost/pmm-callgoose:verify \
	-v "$(go env GOMODCACHE):/go/pkg/mod:ro" -v "$(go env GOCACHE):/root/.cache/go-build" \
	-f "$work/context/deploy/docker/Dockerfile" --build-arg VERSION=0.0.1 "$work/context"
c=$("${store[@]}" from --pull=never localhost/pmm-callgoose:verify)
m=$("${store[@]}" mount "$c")
[[ $("$m/usr/bin/pmm-callgoose" version) == 'pmm-callgoose 0.0.1'* ]]
[[ $(stat -c '%u:%g' "$m/data") == 65532:65532 && -s $m/etc/ssl/certs/ca-certificates.crt ]]
[[ $(find "$m" -type f | wc -l) == 2 ]]
echo "proved: both stages of the Dockerfile build; the image holds the binary, the certificates and an empty /data of its user"
