package worker

import (
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

var t0 = time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)

func openSince(starts time.Time, seen ...time.Time) *event.Episode {
	return &event.Episode{Key: "pmm-a", Open: true, StartsAt: starts, Seen: seen, Count: 1}
}

func closedSince(past ...time.Time) *event.Episode {
	return &event.Episode{Key: "pmm-a", StartsAt: past[0], Past: past, Count: 1}
}

func settledAs(o event.Outcome, at time.Time) *event.Record {
	return &event.Record{Outcome: o, SettledAt: at}
}

// Section 5 of the contract, cell by cell.
func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		arrival arrival
		want    decision
		reason  string
	}{
		"firing, never seen, begins an episode":                        {arrival{firing: true, startsAt: t0}, begin, ""},
		"firing, closed, begins an episode":                            {arrival{firing: true, startsAt: t0.Add(time.Hour), episode: closedSince(t0)}, begin, ""},
		"firing a minute after the start of the closed one begins one": {arrival{firing: true, startsAt: t0.Add(time.Minute), episode: closedSince(t0)}, begin, ""},
		"firing, closed, without a time begins an episode":             {arrival{firing: true, episode: closedSince(t0)}, begin, ""},
		"firing of the episode just closed is late":                    {arrival{firing: true, startsAt: t0, episode: closedSince(t0)}, suppress, event.ReasonLate},
		"firing of the other PMM's start of it is late":                {arrival{firing: true, startsAt: t0.Add(9 * time.Second), episode: closedSince(t0, t0.Add(9*time.Second))}, suppress, event.ReasonLate},
		"firing, open, same start, is a repeat":                        {arrival{firing: true, startsAt: t0, episode: openSince(t0), last: settledAs(event.Delivered, t0)}, suppress, event.ReasonRepeat},
		"firing, open, still queued, is a repeat":                      {arrival{firing: true, startsAt: t0, episode: openSince(t0), last: settledAs(event.Queued, t0)}, suppress, event.ReasonRepeat},
		"firing, open, outcome not known, is a repeat":                 {arrival{firing: true, startsAt: t0, episode: openSince(t0)}, suppress, event.ReasonRepeat},
		"firing, open, without a time, is a repeat":                    {arrival{firing: true, episode: openSince(t0), last: settledAs(event.Delivered, t0)}, suppress, event.ReasonRepeat},
		"firing, open, two minutes off, is a repeat":                   {arrival{firing: true, startsAt: t0.Add(2 * time.Minute), episode: openSince(t0)}, suppress, event.ReasonRepeat},
		"firing, open, two minutes early, is a repeat":                 {arrival{firing: true, startsAt: t0.Add(-2 * time.Minute), episode: openSince(t0)}, suppress, event.ReasonRepeat},
		"firing, open, more than two minutes off, begins one":          {arrival{firing: true, startsAt: t0.Add(2*time.Minute + 1), episode: openSince(t0)}, begin, ""},
		"repeat after a discard goes out again":                        {arrival{firing: true, startsAt: t0, episode: openSince(t0), last: settledAs(event.Discarded, t0)}, again, ""},
		"repeat after a dead letter goes out again":                    {arrival{firing: true, startsAt: t0, episode: openSince(t0), last: settledAs(event.Dead, t0)}, again, ""},
		"repeat after a collapse is a repeat":                          {arrival{firing: true, startsAt: t0, episode: openSince(t0), last: settledAs(event.Collapsed, t0)}, suppress, event.ReasonRepeat},
		"repeat before resend-after is a repeat":                       {arrival{firing: true, startsAt: t0, episode: openSince(t0), last: settledAs(event.Delivered, t0), now: t0.Add(59 * time.Minute), resendAfter: time.Hour}, suppress, event.ReasonRepeat},
		"repeat at resend-after goes out again":                        {arrival{firing: true, startsAt: t0, episode: openSince(t0), last: settledAs(event.Delivered, t0), now: t0.Add(time.Hour), resendAfter: time.Hour}, again, ""},
		"resolved, never seen, is an event":                            {arrival{}, orphan, ""},
		"resolved, open, ends it":                                      {arrival{startsAt: t0, episode: openSince(t0)}, end, ""},
		"resolved with startsAt == endsAt ends it":                     {arrival{startsAt: t0.Add(time.Hour), episode: openSince(t0)}, end, ""},
		"resolved, closed, was passed on already":                      {arrival{startsAt: t0, episode: closedSince(t0)}, suppress, event.ReasonResolved},
	} {
		t.Run(name, func(t *testing.T) {
			got, reason := decide(c.arrival)
			if got != c.want || reason != c.reason {
				t.Errorf("decided %d %q, want %d %q", got, reason, c.want, c.reason)
			}
		})
	}
}

// A late firing of an episode must be known after it closed, and after the next
// one began.
func TestApplyRemembersThePast(t *testing.T) {
	fire := func(at time.Time) *event.Event {
		return &event.Event{Key: "pmm-a", Status: event.Firing, StartsAt: at, Episode: event.EpisodeID(at, 1)}
	}
	ep := apply(nil, fire(t0))
	if !ep.Open || ep.Count != 1 {
		t.Fatalf("after firing: %+v", ep)
	}
	ep.Seen = append(ep.Seen, t0.Add(time.Second))
	ep = apply(ep, &event.Event{Key: "pmm-a", Status: event.Resolved, StartsAt: t0, Episode: ep.ID})
	for _, at := range []time.Time{t0, t0.Add(time.Second)} {
		if d, reason := decide(arrival{firing: true, startsAt: at, episode: ep}); d != suppress || reason != event.ReasonLate {
			t.Errorf("closed, firing of %s: %d %q", at, d, reason)
		}
	}
	ep = apply(ep, fire(t0.Add(time.Hour)))
	if d, reason := decide(arrival{firing: true, startsAt: t0, episode: ep}); d != suppress || reason != event.ReasonLate {
		t.Errorf("open again, firing of the first: %d %q", d, reason)
	}
	if ep.Count != 2 || !ep.Open {
		t.Errorf("after the second firing: %+v", ep)
	}
}

func TestBackoffStaysBetweenItsBounds(t *testing.T) {
	least, most := time.Second, time.Minute
	for n := range 100 {
		low := backoff(n, least, most, func(time.Duration) time.Duration { return 0 })
		high := backoff(n, least, most, func(d time.Duration) time.Duration { return d })
		if low != least || high < least || high > most {
			t.Errorf("try %d waits %s to %s", n, low, high)
		}
		if n < 6 && high != least<<n {
			t.Errorf("try %d waits up to %s, want %s", n, high, least<<n)
		}
	}
}

func TestCircuit(t *testing.T) {
	zero := func(time.Duration) time.Duration { return 0 }
	fresh := func(state string) *circuit {
		c := newCircuit(event.Circuit{State: state, Since: t0}, time.Second, time.Minute)
		c.dice = zero
		return c
	}
	t.Run("one failure is bad luck, three on end are an outage", func(t *testing.T) {
		c := fresh(event.Up)
		for i, want := range []string{event.Up, event.Up, event.Down} {
			c.observe(t0, "a", false, verdict{class: trouble}, "503")
			if c.State != want {
				t.Fatalf("after %d failures: %s", i+1, c.State)
			}
		}
	})
	t.Run("an answer in between starts the count anew", func(t *testing.T) {
		c := fresh(event.Up)
		for range 10 {
			c.observe(t0, "a", false, verdict{class: trouble}, "503")
			c.observe(t0, "b", false, verdict{class: trouble}, "503")
			c.observe(t0, "c", false, verdict{}, "")
		}
		if c.State != event.Up {
			t.Fatal(c.State)
		}
	})
	t.Run("a refused connection is an outage at once", func(t *testing.T) {
		c := fresh(event.Up)
		if !c.observe(t0, "a", false, verdict{class: unreachable}, "refused") || c.State != event.Down {
			t.Fatal(c.State)
		}
	})
	t.Run("probes go one at a time, and rarer as the outage lasts", func(t *testing.T) {
		c := fresh(event.Down)
		for _, step := range []struct{ after, wait time.Duration }{{time.Second, 1500 * time.Millisecond}, {time.Minute, 4500 * time.Millisecond}, {24 * time.Hour, 45 * time.Second}} {
			now := t0.Add(step.after)
			c.probeAt = now
			if ok, probe := c.allow(now); !ok || !probe {
				t.Fatalf("after %s no probe may go", step.after)
			}
			c.probing = true
			if ok, _ := c.allow(now); ok {
				t.Fatal("two probes at a time")
			}
			c.observe(now, "a", true, verdict{class: unreachable}, "refused")
			if got := c.probeAt.Sub(now); got != step.wait {
				t.Errorf("after %s the next probe waits %s, want %s", step.after, got, step.wait)
			}
		}
	})
	t.Run("a wrong token holds, an answer ends it", func(t *testing.T) {
		c := fresh(event.Up)
		c.observe(t0, "a", false, verdict{class: misconfig}, "401")
		if c.State != event.Held || c.LastError != "401" {
			t.Fatal(c.Circuit)
		}
		c.observe(t0, "a", true, verdict{class: answered}, "")
		if c.State != event.Up || c.LastError != "" {
			t.Fatal(c.Circuit)
		}
	})
	t.Run("an event that is refused for itself lets another one try at once", func(t *testing.T) {
		c := fresh(event.Up)
		for range 3 {
			c.observe(t0, "poison", false, verdict{class: trouble}, "500")
		}
		if c.State != event.Down || !c.hopeful("other") || c.hopeful("poison") {
			t.Fatal(c.State, c.failed)
		}
	})
}
