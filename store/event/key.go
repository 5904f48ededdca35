package event

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/fnv"
	"strconv"
	"time"
)

// Partitions is the number of partitions of the events stream. Fixed for ever:
// it is part of the subjects on disk.
const Partitions = 64

// Key is the incident key: the identity of an alert, the same for its firing
// and its resolved event. Nothing of time goes into it.
func Key(source, fingerprint string) string { return source + "-" + fingerprint }

// Partition is the partition of an incident key.
func Partition(key string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return h.Sum32() % Partitions
}

// ID is the identity of an event: a hash of incident key, status and episode,
// never of the time of arrival. Changing it is a migration: golden-tested.
func ID(key string, s Status, episode string) string {
	h := sha256.Sum256([]byte("pmm-callgoose/1\x00" + key + "\x00" + string(s) + "\x00" + episode))
	return hex.EncodeToString(h[:10])
}

// EpisodeID names an episode: by its start where PMM gave one, else by counting.
func EpisodeID(startsAt time.Time, count uint64) string {
	if startsAt.IsZero() {
		return "#" + strconv.FormatUint(count, 10)
	}
	return startsAt.UTC().Format(time.RFC3339Nano)
}
