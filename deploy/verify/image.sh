#!/usr/bin/env bash
# Builds the image and runs it locked up: read-only, no capabilities, not root.
# A webhook goes in while nothing listens at Callgoose's address; the container
# is killed and replaced; the event is still there. Needs root, buildah, podman
# and runc; opens ports on loopback only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
image=localhost/pmm-callgoose:verify
work=$(mktemp -d)
name=pmm-callgoose-verify
run=(podman --cgroup-manager=cgroupfs --runtime runc)
cleanup() {
	"${run[@]}" rm -f -i $name >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap cleanup EXIT

ENGINE=buildah BUILD_FLAGS=--isolation=chroot deploy/docker/build.sh $image >"$work/build" 2>&1 || {
	cat "$work/build"
	exit 1
}
echo "proved: the image builds: $(buildah images --format '{{.Size}}' $image)"

mkdir "$work/data" "$work/secrets"
printf cg-token >"$work/secrets/callgoose-token"
printf in-token >"$work/secrets/ingest-token"
chown 65532:65532 "$work/data"
chown -R root:65532 "$work/secrets" # as a pod gets them, with fsGroup and defaultMode 0440
chmod 440 "$work"/secrets/*
chmod 711 "$work"

start() {
	"${run[@]}" run -d --name $name --network=host --read-only --cap-drop=all --security-opt no-new-privileges \
		--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 -v "$work/data:/data" -v "$work/secrets:/run/secrets:ro" \
		-e PMM_CALLGOOSE_LISTEN=127.0.0.1:24667 -e PMM_CALLGOOSE_ADMIN_LISTEN=off \
		-e PMM_CALLGOOSE_CALLGOOSE_URL=http://127.0.0.1:9/v1/process \
		-e PMM_CALLGOOSE_CALLGOOSE_TOKEN_FILE=/run/secrets/callgoose-token \
		-e PMM_CALLGOOSE_INGEST_TOKEN_FILE=/run/secrets/ingest-token $image >/dev/null
}
inside() { "${run[@]}" exec $name pmm-callgoose "$@"; }
ready() {
	for _ in $(seq 60); do
		if inside health >/dev/null 2>&1; then return; fi
		sleep 0.5
	done
	"${run[@]}" logs $name
	return 1
}

start
ready
echo "proved: it runs as $("${run[@]}" exec $name pmm-callgoose config show --output json >/dev/null && "${run[@]}" inspect --format '{{.Config.User}}' $name), read-only, no capabilities; health says ok"
[[ $("${run[@]}" logs $name 2>&1) != *'other users'* ]]
echo "proved: secrets of root's with mode 0440, as Kubernetes mounts them, are read through its group and not warned about"
code=$(curl -sS -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer in-token' --data-binary @testdata/webhook/guide-firing.json http://127.0.0.1:24667/v1/webhook)
[[ $code == 202 ]]
inside status --output json | grep -q '"queued": 1'
inside health >/dev/null
"${run[@]}" healthcheck run $name
echo "proved: 202, one event waits for a Callgoose that is down, the image's own health check passes"
"${run[@]}" kill -s KILL $name >/dev/null
if "${run[@]}" exec $name pmm-callgoose health 2>/dev/null; then exit 1; fi
"${run[@]}" rm $name >/dev/null
start
ready
inside status --output json | grep -q '"queued": 1'
"${run[@]}" stop -t 30 $name >/dev/null
[[ $("${run[@]}" inspect --format '{{.State.ExitCode}}' $name) == 0 ]]
echo "proved: killed and replaced, the event is still there; stopped in order"
