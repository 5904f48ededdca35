#!/usr/bin/env bash
# Starts the container as a file under deploy/ describes it, sends it a webhook
# while Callgoose is away, replaces it, and lets Callgoose come back:
#   deploy/verify/containers.sh compose           compose.yaml, with podman-compose
#   deploy/verify/containers.sh unit FILE         the podman command in a unit's ExecStart
# IMAGE is the image to run; it is built if there is none given. Needs root,
# buildah, podman, runc, curl and nsenter; all traffic stays inside the container's own network.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
how=${1:?compose or unit} file=${2:-compose.yaml} image=${IMAGE:-}
name=pmm-callgoose volume=pmm-callgoose-data network=pmm-callgoose-verify
work=$(mktemp -d)
trap 'echo "FAILED at line $LINENO: $BASH_COMMAND" >&2' ERR

proved() { printf 'proved: %s\n' "$*"; }
printf '#!/bin/sh\nexec podman --cgroup-manager=cgroupfs --runtime runc "$@"\n' >"$work/podman"
chmod 755 "$work/podman"
# What a container needs where its maker may raise no limits.
limits=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)

# The names are those of the files: what is in use here is not ours to touch.
if podman container exists $name || podman volume exists $volume || podman secret inspect callgoose-token >/dev/null 2>&1; then
	echo "there is a container, a volume or a secret of pmm-callgoose here already" >&2
	exit 1
fi
fake=""
cleanup() {
	set +e
	if [[ $fake ]]; then kill "$fake" || true; fi
	"$work/podman" rm -f -i -t 0 $name
	podman volume rm -f $volume
	podman network rm -f $network
	podman secret rm callgoose-token ingest-token
	rm -rf "$work"
}
trap 'cleanup >/dev/null 2>&1' EXIT

if [[ ! $image ]]; then
	image=localhost/pmm-callgoose:verify
	ENGINE=buildah BUILD_FLAGS=--isolation=chroot deploy/docker/build.sh $image >"$work/build" 2>&1 || { cat "$work/build" >&2; exit 1; }
fi
podman network create $network >/dev/null
mkdir -m 700 "$work/secrets"
printf cg-token >"$work/secrets/callgoose-token"
printf in-token >"$work/secrets/ingest-token"
chmod 400 "$work"/secrets/*
chown 65532 "$work"/secrets/*
url=http://127.0.0.1:4670/v1/process # plain http is for loopback only

compose() {
	# A copy, so that the secrets beside it are ours. The image is there: nothing is built.
	cp deploy/docker/compose.yaml "$work"
	printf '%s\n' "CALLGOOSE_URL=$url" "PMM_NETWORK=$network" "CALLGOOSE_FORWARDER_IMAGE=$image" >"$work/.env"
	podman-compose --podman-path "$work/podman" --podman-run-args="${limits[*]}" -p verify -f "$work/compose.yaml" "$@" >>"$work/compose" 2>&1 ||
		{ cat "$work/compose" >&2; return 1; }
}
# The words of ExecStart, with what belongs to this trial instead of the example's.
unit() {
	local -a words
	read -ra words < <(sed -e ':a' -e '/\\$/{N;s/\\\n *//;ba' -e '}' "$file" | sed -n 's|^ExecStart=/usr/bin/podman run ||p' | sed \
		-e "s|https://YOUR-ORG[^ \"]*|$url|" -e "s|pmm_default|$network|" -e "s|localhost/pmm-callgoose:[0-9.]*|$image|" \
		-e 's|--cidfile=[^ ]* ||; s|--cgroups=split ||; s|--sdnotify=[^ ]* ||; s| -d | |; s|--log-driver[= ]journald||')
	"$work/podman" run -d "${limits[@]}" "${words[@]}" 2>>"$work/log" >/dev/null || { cat "$work/log" >&2; return 1; }
}
start() {
	if [[ $how == compose ]]; then compose up -d; else unit; fi
	for _ in $(seq 60); do
		if inside health >/dev/null 2>&1; then break; fi
		sleep 0.5
	done
	inside health >/dev/null
	pid=$("$work/podman" inspect --format '{{.State.Pid}}' $name)
}
inside() { "$work/podman" exec $name pmm-callgoose "$@"; }
has() { inside status --output json | grep -q "\"$1\": $2,"; }

if [[ $how == unit ]]; then
	for secret in callgoose-token ingest-token; do podman secret create $secret "$work/secrets/$secret" >/dev/null; done
fi
start
grep -q '^Uid:.65532.65532' "/proc/$pid/status"
grep -q '^CapEff:.0000000000000000$' "/proc/$pid/status"
grep -q '^CapBnd:.0000000000000000$' "/proc/$pid/status"
grep -q '^NoNewPrivs:.1$' "/proc/$pid/status"
[[ $(awk '$5 == "/" { print $6 }' "/proc/$pid/mountinfo") == ro* ]]
[[ $("$work/podman" logs $name 2>&1) != *'other users'* ]]
proved "${file##*/}: it runs as user 65532, without any capability or new privileges, on a read-only root"

code=$(nsenter -t "$pid" -n curl -sS -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer in-token' \
	--data-binary @testdata/webhook/guide-firing.json http://127.0.0.1:4667/v1/webhook)
[[ $code == 202 ]]
has queued 1
"$work/podman" kill -s KILL $name >/dev/null
"$work/podman" rm -f -i $name >/dev/null 2>&1
start
has queued 1
CGO_ENABLED=0 go build -o "$work/callgoose-fake" ./cmd/callgoose-fake
nsenter -t "$pid" -n "$work/callgoose-fake" --quiet >/dev/null 2>&1 &
fake=$!
for _ in $(seq 60); do
	if has delivered 1; then break; fi
	sleep 0.5
done
has delivered 1
has queued 0
proved "a webhook got 202 while Callgoose was away; killed and replaced, it waited; then it was delivered"
"$work/podman" wait $name >"$work/code" 2>/dev/null &
waiting=$!
sleep 1
# Without systemd here podman complains that it has no timer for health checks.
"$work/podman" stop -t 30 $name >/dev/null 2>&1 || true
wait $waiting
[[ $(<"$work/code") == 0 ]]
proved "it stops in order"
