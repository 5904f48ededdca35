#!/usr/bin/env bash
# Builds deb and rpm, the same bytes each time for one commit and version. Needs
# Go, git and the way to Go's module proxy:
#   deploy/package/build.sh VERSION OUTDIR [ARCH...]     (default: amd64 arm64)
# NFPM is the command to pack with, SOURCE_DATE_EPOCH the time in the packages.
# MAINTAINER, "Name <address>", is who answers for them: whoever publishes them.
# Without it they name an address that cannot exist (RFC 2606), and that is said.
set -euo pipefail

version=${1:?VERSION}
mkdir -p "${2:?OUTDIR}"
out=$(cd "$2" && pwd)
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ -z ${SOURCE_DATE_EPOCH:-} ]]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
fi
if [[ -z ${MAINTAINER:-} ]]; then
	MAINTAINER='nobody yet <maintainer-not-set@example.invalid>'
	echo "MAINTAINER is not set: these packages name nobody to write to" >&2
fi
export SOURCE_DATE_EPOCH MAINTAINER VERSION=$version CGO_ENABLED=0
commit=$(git rev-parse HEAD 2>/dev/null || true)
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
read -ra nfpm <<<"${NFPM:-go run $(sed -n 's/^ *NFPM: *//p' Taskfile.yml)}"
flags="-s -w -X pmm-callgoose/cmd/internal/cli.version=$version -X pmm-callgoose/cmd/internal/cli.commit=$commit -X pmm-callgoose/cmd/internal/cli.date=$date"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
go build -trimpath -buildvcs=false -ldflags "$flags" -o "$stage/native" ./cmd/pmm-callgoose
cp deploy/package/{config.yaml,nfpm.yaml,*.sh,copyright,lintian-overrides} deploy/systemd/* LICENSE "$stage"
mkdir "$stage"/{docs,examples}
cp deploy/docs/* "$stage/docs"
cp deploy/grafana/dashboard.json deploy/prometheus/rules.yml deploy/pmm/alert-templates.yml "$stage/examples"
cp -r deploy/pmm/{terraform,provisioning} "$stage/examples"
# README's links lead to where the package puts things.
sed -e 's|(deploy/docs/|(docs/|g' README.md | gzip -9n >"$stage/README.md.gz"
gzip -9nc CHANGELOG.md >"$stage/CHANGELOG.md.gz"
for shell in bash zsh fish; do "$stage/native" completion $shell >"$stage/completion.$shell"; done
"$stage/native" man | gzip -9n >"$stage/pmm-callgoose.1.gz"
gzip -9nc <<-EOF >"$stage/changelog.gz"
	pmm-callgoose ($version) stable; urgency=medium

	  * What changed stands in CHANGELOG.md.gz beside this file.

	 -- $MAINTAINER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF
(($#)) || set -- amd64 arm64
for ARCH in "$@"; do
	export ARCH
	GOOS=linux GOARCH=$ARCH go build -trimpath -tags urfave_cli_no_docs -buildvcs=false -ldflags "$flags" -o "$stage/pmm-callgoose" ./cmd/pmm-callgoose
	for kind in deb rpm; do
		(cd "$stage" && "${nfpm[@]}" package -f nfpm.yaml -p $kind -t "$out")
	done
done
