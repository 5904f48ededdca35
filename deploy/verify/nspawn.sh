#!/usr/bin/env bash
# Boots a bare Debian in a container and lets trial.sh install, break, upgrade
# and remove our package there. Needs root, systemd-nspawn and debootstrap.
#   ROOT  a debootstrap root to copy, made when it is not there
#   DEBS  a directory with two versions of the package
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${ROOT:?} debs=${DEBS:?}

if [[ ! -d $root/usr ]]; then
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,curl bookworm "$root" >/dev/null
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -a "$root/." "$copy"
mkdir "$copy/trial"
cp -r "$debs"/*_amd64.deb "$here/trial.sh" "$here/../../testdata/webhook" "$copy/trial"
(cd "$here/../.." && CGO_ENABLED=0 go build -o "$copy/trial/callgoose-fake" ./cmd/callgoose-fake)
cat >"$copy/etc/systemd/system/trial.service" <<-EOF
	[Unit]
	Wants=basic.target
	After=basic.target
	[Service]
	Type=oneshot
	ExecStart=/bin/bash /trial/trial.sh
	StandardOutput=append:/trial/log
	StandardError=append:/trial/log
	ExecStopPost=/bin/systemctl --no-block poweroff
	TimeoutStartSec=420
	[Install]
	WantedBy=multi-user.target
EOF
ln -s ../trial.service "$copy/etc/systemd/system/multi-user.target.wants/trial.service"
timeout 450 systemd-nspawn -q -b --register=no --keep-unit --private-network -D "$copy" </dev/null >"$copy/trial/boot" 2>&1 || true
if [[ ! -s $copy/trial/log ]]; then
	tail -20 "$copy/trial/boot"
	echo "the container did not boot"
	exit 1
fi
grep -v '^(Reading\|^Selecting\|^Preparing' "$copy/trial/log"
grep -q 'TRIAL PASSED' "$copy/trial/log"
