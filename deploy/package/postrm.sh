#!/bin/sh
# After removal, for dpkg ("remove", "purge") and rpm ("0").
set -e

case "$1" in
remove | purge | 0) ;;
*) exit 0 ;;
esac

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
# Alerts that were accepted and not delivered are not ours to delete.
if [ "$1" != remove ]; then
	for left in /var/lib/pmm-callgoose /etc/pmm-callgoose/credentials; do
		if [ -d "$left" ]; then echo "pmm-callgoose: $left stays; delete it if you want its content gone"; fi
	done
fi
