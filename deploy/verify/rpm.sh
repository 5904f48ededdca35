#!/usr/bin/env bash
# Installs, upgrades, downgrades and removes the rpm with rpm itself, scriptlets
# and all, in a root that holds nothing but what these run:
#   deploy/verify/rpm.sh OLDER.rpm NEWER.rpm
# No service is started: there is no systemd in that root. Needs root and rpm.
set -Eeuo pipefail
trap 'echo "FAILED at line $LINENO: $BASH_COMMAND" >&2' ERR
older=$(realpath "${1:?OLDER}") newer=$(realpath "${2:?NEWER}")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

proved() { printf 'proved: %s\n' "$*"; }
pack() { rpm --root "$root" --dbpath /var/lib/rpm "$@"; }
force=(--nodeps --nosignature)
if [[ $(rpm --help) == *--force-debian* ]]; then force+=(--force-debian); fi # Debian's asks whether it is meant

chmod 755 "$root"
mkdir -p "$root"/{etc,tmp,dev,usr/bin,var/lib}
mkdir -m 700 "$root/root"
ln -s usr/bin "$root/bin"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/urandom" c 1 9
for tool in sh systemd-sysusers head od tr; do
	at=$(command -v "$tool")
	cp -L "$at" "$root/usr/bin/$tool"
	while read -r lib; do cp -Ln --parents "$lib" "$root"; done < <(ldd "$at" | grep -o '/[^ ]*')
done

token=$root/etc/pmm-callgoose/credentials/ingest-token
pack --initdb
pack -i "${force[@]}" "$older"
[[ $(chroot "$root" /usr/bin/pmm-callgoose version) == "pmm-callgoose 0.0.1 "* ]]
grep -q '^pmm-callgoose:' "$root/etc/passwd"
[[ $(stat -c '%a %u' "$token") == '600 0' && $(wc -c <"$token") == 48 ]]
[[ $(stat -c %a "$root/etc/pmm-callgoose/credentials") == 700 ]]
[[ -f $root/usr/lib/systemd/system/pmm-callgoose.service ]]
pack -V --nodeps pmm-callgoose
proved "rpm -i: its user, its unit, an ingest token only root can read"

echo 'callgoose-url: https://x.example/v1/process' >>"$root/etc/pmm-callgoose/config.yaml"
mkdir "$root/var/lib/pmm-callgoose"
echo state >"$root/var/lib/pmm-callgoose/ledger.db"
before=$(sha256sum "$token" "$root/etc/pmm-callgoose/config.yaml")
pack -U "${force[@]}" "$newer"
[[ $(chroot "$root" /usr/bin/pmm-callgoose version) == "pmm-callgoose 0.0.2 "* ]]
pack -U "${force[@]}" --oldpackage "$older"
[[ $(chroot "$root" /usr/bin/pmm-callgoose version) == "pmm-callgoose 0.0.1 "* ]]
[[ $(sha256sum "$token" "$root/etc/pmm-callgoose/config.yaml") == "$before" ]]
proved "rpm -U to 0.0.2 and back to 0.0.1: token, settings and data are as they were"

said=$(pack -e "${force[@]}" pmm-callgoose 2>&1)
[[ ! -e $root/usr/bin/pmm-callgoose && ! -e $root/usr/lib/systemd/system/pmm-callgoose.service ]]
[[ $(cat "$root/var/lib/pmm-callgoose/ledger.db") == state && -s $token ]]
grep -q '^callgoose-url: ' "$root/etc/pmm-callgoose/config.yaml.rpmsave"
[[ $said == *'/var/lib/pmm-callgoose stays'*'credentials stays'* ]]
proved "rpm -e: the program is gone; data and secrets stay, and it says so; settings are in config.yaml.rpmsave"
