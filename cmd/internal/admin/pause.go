package admin

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
)

// maxReason bounds what an operator may write down.
const maxReason = 300

// ParsePause reads reason and until: a time, or a duration from now on.
func ParsePause(q url.Values, now time.Time) (p store.Pause, err error) {
	for name := range q {
		if name != "reason" && name != "until" {
			return p, fmt.Errorf("unknown setting %q of a pause", name)
		}
	}
	p.Reason = strings.TrimSpace(q.Get("reason"))
	if len(p.Reason) > maxReason {
		return p, fmt.Errorf("reason is longer than %d bytes", maxReason)
	}
	v := q.Get("until")
	if v == "" {
		return p, nil
	}
	until, err := time.Parse(time.RFC3339, v)
	if d, derr := config.ParseDuration(v); derr == nil {
		until, err = now.Add(d), nil
	}
	if err != nil {
		return p, fmt.Errorf("until %q is no time: say for how long (30m, 2h, 1d), or when (2026-01-31T03:00:00Z)", v)
	}
	if !until.After(now) {
		return p, errors.New("until is in the past")
	}
	p.Until = until.UTC()
	return p, nil
}
