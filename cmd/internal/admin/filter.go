package admin

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
)

// DefaultLimit and MaxLimit bound one answer with events.
const (
	DefaultLimit = 100
	MaxLimit     = 100_000
)

// ParseFilter reads the filters of a query: since, until, status, outcome,
// severity, match (label=value, repeated), incident, text, id, limit. Times are RFC 3339,
// or a duration such as 2h or 3d for "that long ago".
func ParseFilter(q url.Values) (f event.Filter, limit int, err error) {
	limit = DefaultLimit
	for name, values := range q {
		for _, v := range values {
			if err := setFilter(&f, &limit, name, v); err != nil {
				return f, limit, err
			}
		}
	}
	if !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return f, limit, errors.New("until is not later than the beginning: nothing is between them")
	}
	return f, limit, nil
}

func setFilter(f *event.Filter, limit *int, name, v string) (err error) {
	switch name {
	case "since", "until":
		at := map[string]*time.Time{"since": &f.Since, "until": &f.Until}[name]
		if *at, err = ParseTime(v, time.Now()); err != nil {
			err = fmt.Errorf("%s %w", name, err)
		}
	case "status":
		f.Status = event.Status(v)
		if f.Status != event.Firing && f.Status != event.Resolved {
			err = fmt.Errorf("status %q is neither firing nor resolved", v)
		}
	case "outcome":
		for o := range strings.SplitSeq(v, ",") {
			if !known(event.Outcome(o)) {
				return fmt.Errorf("outcome %q is not one of %s", o, OutcomeNames())
			}
			f.Outcomes = append(f.Outcomes, event.Outcome(o))
		}
	case "severity":
		return setFilter(f, limit, "match", "severity="+v)
	case "match":
		k, val, ok := strings.Cut(v, "=")
		if !ok || k == "" {
			return fmt.Errorf("match %q is not label=value", v)
		}
		if other, twice := f.Labels[k]; twice && other != val {
			return fmt.Errorf("match asks for label %q to be both %q and %q", k, other, val)
		}
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		f.Labels[k] = val
	case "incident":
		f.Incident = v
	case "text":
		f.Text = v
	case "id":
		f.IDs = append(f.IDs, v)
	case "limit":
		*limit, err = strconv.Atoi(v)
		if err != nil || *limit < 1 || *limit > MaxLimit {
			err = fmt.Errorf("limit %q is not a number from 1 to %d", v, MaxLimit)
		}
	default:
		err = fmt.Errorf("unknown filter %q", name)
	}
	return err
}

// OutcomeNames lists what an outcome may be, with commas.
func OutcomeNames() string {
	var names []string
	for _, o := range event.Outcomes {
		names = append(names, string(o))
	}
	return strings.Join(names, ", ")
}

func known(o event.Outcome) bool {
	return slices.Contains(event.Outcomes, o)
}

// ParseTime reads RFC 3339, a date with or without a time (UTC), or a duration
// before now, of days too: 90m, 2h, 3d.
func ParseTime(v string, now time.Time) (time.Time, error) {
	if d, err := config.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02 15:04:05Z07:00", time.DateTime, time.DateOnly} {
		// An offset can lead out of the years that RFC 3339 can write.
		if t, err := time.Parse(layout, v); err == nil && t.UTC().Year() >= 0 && t.UTC().Year() <= 9999 {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: say how long ago (90m, 2h, 3d), or when (2026-01-31T03:00:00Z, 2026-01-31 03:00 for UTC)", v)
}

// ParseChoice is ParseFilter for what is acted on: the oldest first, and all of
// them (limit 0) unless a limit is given.
func ParseChoice(q url.Values) (f event.Filter, limit int, err error) {
	if f, limit, err = ParseFilter(q); !q.Has("limit") {
		limit = 0
	}
	f.OldestFirst = true
	return f, limit, err
}

// ParseReplay reads the filters of ParseFilter, and include_closed, rate,
// dry_run, all. Without any filter it demands "all".
func ParseReplay(q url.Values) (r ReplayRequest, err error) {
	rest := url.Values{}
	chosen := q.Has("all")
	for name, values := range q {
		v := values[0]
		switch name {
		case "all":
		case "include_closed":
			r.IncludeClosed, err = strconv.ParseBool(v)
		case "dry_run":
			r.DryRun, err = strconv.ParseBool(v)
		case "rate":
			if r.Rate, err = strconv.ParseFloat(v, 64); err == nil && (!(r.Rate >= 0) || math.IsInf(r.Rate, 0)) {
				err = errors.New("not a number of events a second")
			}
		default:
			rest[name] = values
			chosen = chosen || name != "limit"
		}
		if err != nil {
			return r, fmt.Errorf("%s %q: %w", name, v, err)
		}
	}
	if r.Filter, r.Limit, err = ParseChoice(rest); err != nil {
		return r, err
	}
	if !chosen {
		return r, errors.New("all is needed where neither an ID nor a filter chooses events")
	}
	return r, nil
}
