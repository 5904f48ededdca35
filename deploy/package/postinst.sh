#!/bin/sh
# After unpacking, for dpkg ("configure") and rpm ("1" install, "2" upgrade).
set -e

case "$1" in
configure | 1 | 2) ;;
*) exit 0 ;;
esac

systemd-sysusers pmm-callgoose.conf

# What PMM has to show us. Ours to make, never made twice.
token=/etc/pmm-callgoose/credentials/ingest-token
if [ ! -s "$token" ]; then
	(umask 077 && head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$token")
fi

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# Running already: that is an upgrade. What waits is on disk. It is not
	# started otherwise: there is no token of Callgoose yet.
	systemctl try-restart pmm-callgoose.service ||
		echo "pmm-callgoose did not start again: journalctl -u pmm-callgoose" >&2
fi
