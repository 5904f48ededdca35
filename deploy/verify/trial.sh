#!/bin/bash
# Run by nspawn.sh inside a booted Debian with nothing but systemd, curl and two
# versions of our package in /trial. Prints what it proves; stops at the first
# thing that is not so.
set -Eeuo pipefail
trap 'echo "FAILED at line $LINENO: $BASH_COMMAND"; journalctl --no-pager -u pmm-callgoose | grep -v "goroutine\|^.*:  *\|nats" | tail -40' ERR
cd /trial

proved() { printf 'proved: %s\n' "$*"; }
until_true() { # up to a minute
	for _ in $(seq 120); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.5
	done
	"$@"
}
fake() { systemd-run -q --unit "fake$1" -p StateDirectory=fake /trial/callgoose-fake --quiet --keep-bodies; }
post() {
	local code
	code=$(curl -sS -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $(cat /etc/pmm-callgoose/credentials/ingest-token)" \
		--data-binary "@/trial/webhook/$1" http://127.0.0.1:4667/v1/webhook)
	[[ $code == 202 ]]
}
property() { systemctl show -p "$1" --value pmm-callgoose; }
field() { pmm-callgoose status --output json | sed -n "s/^  \"$1\": \"\{0,1\}\([^\",]*\).*/\1/p"; }
has() { [[ $(field "$1") == "$2" ]]; }
restarts() { [[ $(property NRestarts) == "$1" && $(property ActiveState) == active ]]; }

mapfile -t debs < <(printf '%s\n' pmm-callgoose_*.deb | sort -V)
old=${debs[0]} new=${debs[-1]}

dpkg -i "$old"
[[ $(systemctl is-enabled pmm-callgoose || true) == disabled && $(property ActiveState) == inactive ]]
[[ $(stat -c '%a %U' /etc/pmm-callgoose/credentials/ingest-token) == '600 root' ]]
docs=/usr/share/doc/pmm-callgoose
[[ -s $docs/docs/operate.md && -s $docs/CHANGELOG.md.gz && -s $docs/grafana/dashboard.json && -s $docs/pmm/terraform/main.tf && -s $docs/docker/compose.yaml ]]
proved "install: $old, neither enabled nor started, an ingest token made, documents and examples"

if systemctl start pmm-callgoose; then false; fi
systemctl reset-failed pmm-callgoose
proved "without a token of Callgoose the unit does not start"

install -m 600 /dev/stdin /etc/pmm-callgoose/credentials/callgoose-token <<<'trial-token'
systemctl start pmm-callgoose || true
until_true test "$(property ActiveState)" = failed
[[ $(property ExecMainStatus) == 2 ]]
journalctl --no-pager -u pmm-callgoose -p err | grep -q 'callgoose-url: is needed'
systemctl reset-failed pmm-callgoose
proved "a wrong configuration is a failed unit (exit code 2), not a loop of restarts"

echo 'callgoose-url: http://127.0.0.1:4670/v1/process' >>/etc/pmm-callgoose/config.yaml
fake 1
systemctl enable -q --now pmm-callgoose
[[ $(property ActiveState) == active && $(property StatusText) == 'Nothing was sent to Callgoose yet'* ]]
[[ $(stat -c '%a %U' /var/lib/pmm-callgoose) == '700 pmm-callgoose' ]]
pmm-callgoose health
proved "Type=notify: active once ready, status: $(property StatusText)"
systemd-analyze security --no-pager pmm-callgoose | tail -1

post guide-firing.json
until_true has delivered 1
proved "webhook in, event out"

systemctl stop fake1
post grafana-firing-group-5.json
[[ $(field queued) == 5 ]]
systemctl kill -s KILL pmm-callgoose
until_true restarts 1
[[ $(field queued) == 5 ]]
pmm-callgoose health
proved "Callgoose away, SIGKILL: started again by systemd, 5 of 5 events are there, healthy"

mkdir -p /run/systemd/system/pmm-callgoose.service.d
printf '[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n' >/run/systemd/system/pmm-callgoose.service.d/trial.conf
systemctl daemon-reload
systemctl restart pmm-callgoose
sleep 7 # three and a half times the watchdog's patience
restarts 0
proved "the watchdog is fed: 7 s with WatchdogSec=2s and no restart"
systemctl kill -s STOP pmm-callgoose
until_true restarts 1
journalctl --no-pager -u pmm-callgoose | grep -q 'Watchdog timeout'
[[ $(field queued) == 5 ]]
rm -r /run/systemd/system/pmm-callgoose.service.d
systemctl daemon-reload
systemctl kill -s ABRT pmm-callgoose
until_true restarts 2
proved "a crash of the program (SIGABRT, as a panic ends) is restarted, though wrong settings are not"
proved "frozen: the watchdog restarts it, 5 of 5 events are there"

pid=$(property MainPID)
dpkg -i "$new"
[[ $(property ActiveState) == active && $(property MainPID) != "$pid" && $(field queued) == 5 ]]
[[ pmm-callgoose_$(field version)_amd64.deb == "$new" ]]
grep -q '^callgoose-url: http' /etc/pmm-callgoose/config.yaml
proved "upgrade over the running service with a backlog: $(field version) runs, 5 waiting, settings kept"
dpkg -i "$old" >/dev/null
[[ $(field queued) == 5 ]]
dpkg -i "$new" >/dev/null
proved "downgrade and upgrade again (same format): 5 waiting"

fake 2
until_true has queued 0
[[ $(field delivered) == 6 && $(field dead) == 0 ]]
curl -s 'http://127.0.0.1:4670/_fake/incidents?open=1' >incidents
[[ $(grep -o '"mapped":' incidents | wc -l) == 5 ]]
proved "Callgoose is back: nothing waits, 6 of 6 delivered, 5 incidents are open there"

property_of() { systemctl show -p "$1" --value "$2"; }
[[ $(property_of ActiveState pmm-callgoose-credentials.path) == active ]]
pid=$(property MainPID)
printf '"quoted"' >/etc/pmm-callgoose/credentials/callgoose-token
refused() { [[ $(property_of Result pmm-callgoose-credentials.service) == exit-code ]]; }
until_true refused
[[ $(property MainPID) == "$pid" ]]
proved "a secret that serve would refuse: the watching unit fails, the service goes on with the old one"
printf 'trial-token-2' >/etc/pmm-callgoose/credentials/callgoose-token
restarted() { [[ $(property MainPID) != "$pid" && $(property ActiveState) == active ]]; }
until_true restarted
proved "a changed secret restarts the service by itself"

pid=$(property MainPID)
install -m 600 /dev/stdin /etc/pmm-callgoose/credentials/admin-token <<<'an-operators-token'
until_true restarted
operators() { curl -s -o /dev/null -w '%{http_code}' "$@" http://127.0.0.1:4668/api/v1/status; }
[[ $(operators) == 401 && $(operators -H 'Authorization: Bearer an-operators-token') == 200 ]]
rm /etc/pmm-callgoose/credentials/admin-token
pid=$(property MainPID)
until_true restarted
[[ $(operators) == 200 ]]
proved "an optional secret counts as soon as its file is there, and no longer when it is gone"

useradd oncall
[[ $(su oncall -c 'pmm-callgoose status' 2>&1) == *'asking the one at http://127.0.0.1:4668'*delivered* ]]
sed -i 's/^callgoose-url/rate: 50\n&/' /etc/pmm-callgoose/config.yaml
systemctl reload pmm-callgoose
logged() { journalctl --no-pager -u pmm-callgoose | grep -q 'a setting was changed.*setting=rate'; }
until_true logged
[[ $(su oncall -c 'pmm-callgoose doctor' 2>&1) == *' 0 failed'* ]]
proved "a user without sudo finds the service; a reload says that the changed rate takes a restart"
systemctl stop pmm-callgoose
[[ $(pmm-callgoose status 2>&1) == *'hint: sudo systemctl start pmm-callgoose'* ]]
[[ $(pmm-callgoose doctor 2>&1) == *'The service: sudo systemctl start pmm-callgoose'* ]]
code=0
pmm-callgoose serve >refused 2>&1 || code=$?
[[ $code == 2 && $(<refused) == *'belongs to pmm-callgoose'*'sudo systemctl start pmm-callgoose'* ]]
[[ ! $(find /var/lib/pmm-callgoose -user root) ]]
chown root /var/lib/pmm-callgoose/ledger.db
systemctl start pmm-callgoose || true
until_true test "$(property ActiveState)" = failed
[[ $(property ExecMainStatus) == 2 ]]
chown pmm-callgoose /var/lib/pmm-callgoose/ledger.db
systemctl start pmm-callgoose
[[ $(property ActiveState) == active ]]
proved "serve by hand as root is refused and leaves nothing behind; the hints name systemctl; a file that root left is a failed unit, not a loop"

systemctl stop pmm-callgoose
unwatched() { [[ $(property_of ActiveState pmm-callgoose-credentials.path) == inactive ]]; }
until_true unwatched
[[ $(property Result) == success ]]
proved "it stops in order"

systemctl start pmm-callgoose
dpkg -r pmm-callgoose
[[ ! -e /usr/bin/pmm-callgoose && -f /etc/pmm-callgoose/config.yaml && -f /var/lib/pmm-callgoose/ledger.db ]]
proved "remove: stopped and gone; settings, secrets and data stay"
dpkg -P pmm-callgoose | tee purge.log
grep -q '/var/lib/pmm-callgoose stays' purge.log
[[ ! -e /etc/pmm-callgoose/config.yaml && -f /var/lib/pmm-callgoose/ledger.db && -f /etc/pmm-callgoose/credentials/callgoose-token ]]
proved "purge: settings gone, data and secrets stay, and it says so"
dpkg -i "$new" >/dev/null
echo 'callgoose-url: http://127.0.0.1:4670/v1/process' >>/etc/pmm-callgoose/config.yaml
systemctl start pmm-callgoose
[[ $(field delivered) == 6 ]]
proved "installed again: its history is there"
echo "TRIAL PASSED"
