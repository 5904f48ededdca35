package event

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// Key is the incident key: the identity of an alert, the same for its firing
// and its resolved event. Nothing of time goes into it. No two pairs share one:
// a hyphen in a fingerprint, which PMM never sends, is escaped.
func Key(source, fingerprint string) string {
	if strings.ContainsAny(fingerprint, "-%") {
		fingerprint = escape.Replace(fingerprint)
	}
	return source + "-" + fingerprint
}

// Fingerprint is the fingerprint that Key made the key of.
func Fingerprint(key string) string {
	return unescape.Replace(key[strings.LastIndexByte(key, '-')+1:])
}

var (
	escape   = strings.NewReplacer("-", "%2d", "%", "%25")
	unescape = strings.NewReplacer("%2d", "-", "%25", "%")
)

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
