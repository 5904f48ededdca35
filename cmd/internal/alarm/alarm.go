package alarm

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

// Config says whom to tell, and of what.
type Config struct {
	// Command is run by /bin/sh -c with the Notice on its standard input. "" = none.
	Command string
	// Webhook returns the URL that the Notice is posted to; it may hold a secret
	// and is never printed. Asked each time. nil, or "" at New = none.
	Webhook func() string
	// After is how long trouble lasts before anybody is told. 0 = 5m.
	After time.Duration
	// Every is how often Status is looked at. 0 = 1s.
	Every time.Duration
	// Status is the service at a glance. It must not block. Required.
	Status func(context.Context) (admin.Status, error)
	// Version and Host stand in each Notice. Host "" = the name of this machine.
	Version, Host string
	Logger        *slog.Logger // nil = none
	// Transport replaces the network towards the webhook in tests. nil = HTTP with
	// the proxy of the environment.
	Transport http.RoundTripper
}

// Alarm watches one service. Make it with New, run it once. A nil Alarm has
// nobody to tell and does nothing.
type Alarm struct {
	cfg    Config
	log    *slog.Logger
	ways   []Way
	pauses []time.Duration // between the tries of one way
}

// New makes an Alarm, nil when there is neither a command nor a webhook.
func New(cfg Config) *Alarm {
	cfg.After, cfg.Every = cmp.Or(cfg.After, 5*time.Minute), cmp.Or(cfg.Every, time.Second)
	if cfg.Host == "" {
		cfg.Host, _ = os.Hostname()
	}
	log := cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)).With("component", "alarm")
	a := &Alarm{cfg: cfg, log: log, pauses: []time.Duration{time.Second, 5 * time.Second}}
	if a.ways = Ways(cfg.Webhook, cfg.Transport, cfg.Command, 30*time.Second); len(a.ways) == 0 {
		return nil
	}
	return a
}

// Run watches until ctx ends, and returns when everything it started has ended.
func (a *Alarm) Run(ctx context.Context) {
	if a == nil {
		return
	}
	jobs, unheard := make(chan Notice), make(chan string)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(jobs)
	wg.Go(func() { a.work(ctx, jobs, unheard) })

	w, blind := newWatch(a.cfg.After), false
	var pending []Notice // not sent yet
	look := func() {
		s, err := a.cfg.Status(ctx)
		if err != nil && !blind && ctx.Err() == nil {
			a.log.WarnContext(ctx, "the status cannot be read: no alarm until it can", "err", err)
		}
		if blind = err != nil; blind {
			return
		}
		for _, n := range w.observe(time.Now(), s) {
			n.Host, n.Version = a.cfg.Host, a.cfg.Version
			a.note(ctx, n)
			pending = replace(pending, n)
		}
	}
	tick := time.NewTicker(a.cfg.Every)
	defer tick.Stop()
	for look(); ; {
		var next Notice
		var free chan<- Notice // nil, on which nothing is ever sent, while there is nothing to send
		if len(pending) > 0 {
			next, free = pending[0], jobs
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			look()
		case free <- next:
			pending = pending[1:]
		case name := <-unheard:
			w.unheard(time.Now(), name)
		}
	}
}

// replace puts n in place of an older notice of its alarm, else at the end: so pending
// notices never grow in number, and nobody is told what is no longer true.
func replace(pending []Notice, n Notice) []Notice {
	for i, old := range pending {
		if old.Alarm == n.Alarm {
			pending[i] = n
			return pending
		}
	}
	return append(pending, n)
}

// note writes a notice to the log.
func (a *Alarm) note(ctx context.Context, n Notice) {
	level := slog.LevelError
	if n.Over {
		level = slog.LevelInfo
	}
	a.log.Log(ctx, level, "alarm", "alarm", n.Alarm, "over", n.Over, "count", n.Count, "text", n.Text)
}

// work sends one notice after the other, by all ways side by side, and names the alarms
// whose notice reached nobody.
func (a *Alarm) work(ctx context.Context, jobs <-chan Notice, unheard chan<- string) {
	for n := range jobs {
		heard := make([]bool, len(a.ways))
		var wg sync.WaitGroup
		for i, w := range a.ways {
			wg.Go(func() { heard[i] = a.try(ctx, w, n) })
		}
		wg.Wait()
		if slices.Contains(heard, true) || n.Over {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case unheard <- n.Alarm:
		}
	}
}

// try sends n by one way, three times at most.
func (a *Alarm) try(ctx context.Context, w Way, n Notice) bool {
	body, _ := json.Marshal(n) // texts, numbers and times of our own
	for attempt := 1; ; attempt++ {
		start := time.Now()
		err := w.Send(ctx, body, "PMM_CALLGOOSE_ALARM="+n.Alarm, "PMM_CALLGOOSE_ALARM_OVER="+strconv.FormatBool(n.Over), "PMM_CALLGOOSE_ALARM_TEXT="+n.Text)
		log := a.log.With("alarm", n.Alarm, "over", n.Over, "target", w.Name, "attempt", attempt, "duration", time.Since(start))
		switch {
		case err == nil:
			log.InfoContext(ctx, "notice sent")
			return true
		case ctx.Err() != nil:
			return false
		case attempt > len(a.pauses):
			log.ErrorContext(ctx, "nobody could be told; no more attempts for this notice", "err", err)
			return false
		}
		log.WarnContext(ctx, "notice not sent", "err", err, "retry_in", a.pauses[attempt-1])
		select {
		case <-ctx.Done():
			return false
		case <-time.After(a.pauses[attempt-1]):
		}
	}
}
