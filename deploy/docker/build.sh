#!/usr/bin/env bash
# Builds the image with the first of docker, podman and buildah that works:
#   deploy/docker/build.sh [NAME:TAG]     (default: pmm-callgoose:VERSION and pmm-callgoose:latest)
# Where Go is installed the binary is built outside of the container, which needs
# no other image; else inside, as the Dockerfile says.
# VERSION is the newest in CHANGELOG.md unless it is set. ENGINE chooses.
# GOARCH=arm64 builds for arm64. CA_BUNDLE names another bundle of certificates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=${VERSION:-$(sed -n 's/^## \[\([0-9][^]]*\)\].*/\1/p' CHANGELOG.md | head -1)}
commit=$(git rev-parse HEAD 2>/dev/null || true)
date=$(git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || true)
tags=(-t "pmm-callgoose:$version" -t pmm-callgoose:latest)
if (($#)); then tags=(-t "$1"); fi

engine=""
for candidate in ${ENGINE:-docker podman buildah}; do
	command -v "$candidate" >/dev/null || continue
	# A client without a daemon builds nothing.
	[[ $candidate == docker ]] && ! docker info >/dev/null 2>&1 && continue
	engine=$candidate
	break
done
if [[ ! $engine ]]; then
	echo "none of docker (with its daemon), podman and buildah is here" >&2
	exit 1
fi
# BUILD_FLAGS: what the machine needs, such as --isolation=chroot.
read -ra more <<<"${BUILD_FLAGS:-}"
# Only the format of Docker has room for a health check.
[[ $engine == docker ]] || more+=(--format docker)

if ! command -v go >/dev/null; then
	exec "$engine" build "${more[@]}" ${GOARCH:+--platform "linux/$GOARCH"} "${tags[@]}" -f deploy/docker/Dockerfile \
		--build-arg "VERSION=$version" --build-arg "COMMIT=$commit" --build-arg "DATE=$date" .
fi
arch=${GOARCH:-$(go env GOARCH)}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context"/{data,usr/bin,etc/ssl/certs}
cp "${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}" "$context/etc/ssl/certs/ca-certificates.crt"
names=pmm-callgoose/cmd/internal/cli
CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -tags urfave_cli_no_docs -buildvcs=false \
	-ldflags "-s -w -X $names.version=$version -X $names.commit=$commit -X $names.date=$date" \
	-o "$context/usr/bin/pmm-callgoose" ./cmd/pmm-callgoose
chmod -R u=rwX,go=rX "$context"
# The last stage of the Dockerfile, with what the first would have made.
sed -e '1,/^FROM scratch/{/^FROM scratch/!d}' -e 's|--from=build ||' -e 's| /image/| |' deploy/docker/Dockerfile >"$context/Dockerfile"
"$engine" build --platform "linux/$arch" "${more[@]}" "${tags[@]}" -f "$context/Dockerfile" "$context"
