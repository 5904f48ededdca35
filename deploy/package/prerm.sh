#!/bin/sh
# Before removal, for dpkg ("remove") and rpm ("0"). An upgrade goes on running
# until the new version is in place.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac

if [ -d /run/systemd/system ]; then
	systemctl stop pmm-callgoose-credentials.path
	systemctl disable --now pmm-callgoose.service
fi
