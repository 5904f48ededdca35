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
# Documents and what they link to lie beside each other, as in deploy.
mkdir "$stage/doc"
cp -r deploy/{docs,grafana,kubernetes,pmm,podman,prometheus,systemd} .github/SECURITY.md "$stage/doc"
install -D -m 644 -t "$stage/doc/docker" deploy/docker/*.yaml
sed 's|(deploy/|(|g; s|(\.github/|(|g; s|(CHANGELOG\.md|&.gz|g; s|(LICENSE)|(https://www.apache.org/licenses/LICENSE-2.0)|g' README.md >"$stage/doc/README.md"
find "$stage/doc" -mindepth 2 -name '*.md' -exec sed -i 's|(../../.github/|(../|g; s|(../../\([A-Z]*\.md\)|(../\1.gz|g' {} +
chmod -R u=rwX,go=rX "$stage/doc"
gzip -9n "$stage/doc/README.md"
gzip -9nc CHANGELOG.md >"$stage/doc/CHANGELOG.md.gz"
for doc in "$stage"/doc/*/*.md; do
	{ grep -o '](\.\./[^)#]*' "$doc" || true; } | cut -c3- | while read -r link; do
		[[ -e ${doc%/*}/$link ]] || { echo "$doc: its link $link leads nowhere in the package" >&2; exit 1; }
	done
done
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
