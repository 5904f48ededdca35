#!/usr/bin/env bash
# Builds the image with the first of docker, podman and buildah that is there:
#   deploy/docker/build.sh [NAME:TAG]          (default: pmm-callgoose:latest)
# ENGINE chooses. GOARCH=arm64 builds for arm64. CA_BUNDLE names another bundle of certificates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=${1:-pmm-callgoose:latest}
arch=${GOARCH:-$(go env GOARCH)}

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
version=${VERSION:-$(git describe --tags --always 2>/dev/null || echo dev)}
CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -tags urfave_cli_no_docs \
	-ldflags "-s -w -X pmm-callgoose/cmd/internal/cli.version=${version#v}" -o "$context/pmm-callgoose" ./cmd/pmm-callgoose
cp "${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}" "$context/ca-certificates.crt"
mkdir "$context/data"

# BUILD_FLAGS: what the machine needs, such as --isolation=chroot.
read -ra more <<<"${BUILD_FLAGS:-}"
file=deploy/docker/Dockerfile
for engine in ${ENGINE:-docker podman buildah}; do
	command -v "$engine" >/dev/null || continue
	# Only the format of Docker has room for a health check.
	[[ $engine == docker ]] || more+=(--format docker)
	"$engine" build --platform "linux/$arch" "${more[@]}" -t "$name" -f $file "$context"
	exit
done
echo "none of docker, podman and buildah is installed" >&2
exit 1
