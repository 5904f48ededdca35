package alarm

import (
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
	box    outbox
	ways   []Way
	pauses []time.Duration // between the tries of one way
}

// New makes an Alarm, nil when there is neither a command nor a webhook.
func New(cfg Config) *Alarm {
	if cfg.After <= 0 {
		cfg.After = 5 * time.Minute
	}
	if cfg.Every <= 0 {
		cfg.Every = time.Second
	}
	if cfg.Host == "" {
		cfg.Host, _ = os.Hostname()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Alarm{
		cfg: cfg, log: cfg.Logger.With("component", "alarm"), box: outbox{wake: make(chan struct{}, 1)},
		pauses: []time.Duration{time.Second, 5 * time.Second},
	}
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
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.work(ctx) })

	w := newWatch(a.cfg.After)
	tick := time.NewTicker(a.cfg.Every)
	defer tick.Stop()
	for blind := false; ; {
		switch s, err := a.cfg.Status(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil && !blind:
			blind = true
			a.log.WarnContext(ctx, "the status cannot be read: no alarm until it can", "err", err)
		case err == nil:
			blind = false
			now := time.Now()
			for _, name := range a.box.unheard() {
				w.unheard(now, name)
			}
			for _, n := range w.observe(now, s) {
				a.tell(ctx, n)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *Alarm) tell(ctx context.Context, n Notice) {
	n.Host, n.Version = a.cfg.Host, a.cfg.Version
	level := slog.LevelError
	if n.Over {
		level = slog.LevelInfo
	}
	a.log.Log(ctx, level, "alarm", "alarm", n.Alarm, "over", n.Over, "count", n.Count, "text", n.Text)
	a.box.put(n)
}

// work sends one notice after the other, by all ways side by side.
func (a *Alarm) work(ctx context.Context) {
	for {
		n, ok := a.box.take()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-a.box.wake:
			}
			continue
		}
		heard := make([]bool, len(a.ways))
		var wg sync.WaitGroup
		for i, w := range a.ways {
			wg.Go(func() { heard[i] = a.try(ctx, w, n) })
		}
		wg.Wait()
		if ctx.Err() != nil {
			return
		}
		if !slices.Contains(heard, true) && !n.Over {
			a.box.missed(n.Alarm)
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

// outbox holds the newest unsent notice of each alarm, so it never grows and
// nobody is told what is no longer true.
type outbox struct {
	wake chan struct{} // holds one token when there may be something to take

	mu      sync.Mutex
	pending []Notice        // guarded by mu
	lost    map[string]bool // alarms whose notice reached nobody; guarded by mu
}

func (b *outbox) put(n Notice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}()
	for i, old := range b.pending {
		if old.Alarm == n.Alarm {
			b.pending[i] = n
			return
		}
	}
	b.pending = append(b.pending, n)
}

func (b *outbox) take() (n Notice, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.pending) == 0 {
		return n, false
	}
	n, b.pending = b.pending[0], b.pending[1:]
	return n, true
}

func (b *outbox) missed(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost == nil {
		b.lost = map[string]bool{}
	}
	b.lost[name] = true
}

// unheard lists the alarms whose notice reached nobody, once.
func (b *outbox) unheard() (names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.lost {
		names = append(names, name)
	}
	b.lost = nil
	return names
}
