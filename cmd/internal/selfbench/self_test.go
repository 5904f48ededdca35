package selfbench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/bench"
)

// Report is what it came to. Rates are per second, times in milliseconds or as
// their names say.
type Report struct {
	Idle    Idle          `json:"idle"`
	Fsync   bench.Latency `json:"fsync_ms"` // of the same bytes in the same directory
	Intake  []Columns     `json:"intake"`
	Delay   bench.Latency `json:"delay_ms"` // from the 202 to the sink, on a quiet system
	Outage  *Outage       `json:"outage,omitempty"`
	Backlog *Backlog      `json:"backlog,omitempty"`
	Growth  *Growth       `json:"growth,omitempty"`

	Events  int64 `json:"events"` // that had to arrive
	Missing int64 `json:"missing"`
	Wrong   int64 `json:"wrong"` // twice or out of order
}

// Idle is the forwarder with nothing to do.
type Idle struct {
	Ready   float64 `json:"ready_seconds"`
	Usage   Usage   `json:"usage"`
	CPUPart float64 `json:"cpu_percent"` // over the five seconds looked at
}

// Columns compare the intake with what else the machine does.
type Columns struct {
	Connections int            `json:"connections"`
	Service     bench.Measured `json:"service"`
	Discard     bench.Measured `json:"discard"`
	FsyncEach   bench.Measured `json:"fsync_each"`
	OfDiscard   float64        `json:"of_discard"` // Service / Discard
	// Usage of the forwarder over this load until all was delivered.
	CPUPer10k   float64 `json:"cpu_seconds_per_10k_alerts,omitempty"`
	WrittenEach float64 `json:"written_bytes_per_webhook,omitempty"`
	Peak        int64   `json:"peak_resident_bytes,omitempty"`
}

// Outage is the sink answering 503 for a while.
type Outage struct {
	Seconds float64 `json:"seconds"`
	Calls   int64   `json:"calls"` // made during it
	First   float64 `json:"first_delivery_seconds"`
	Queued  int64   `json:"queued"`
}

// Backlog is many queued events: what they take, a kill -9, and the drain.
type Backlog struct {
	Events   int64   `json:"events"`
	Keys     int     `json:"keys"`
	Usage    Usage   `json:"usage"`                  // with all of them queued
	Open     float64 `json:"port_open_seconds"`      // after kill -9: webhooks are taken, and wait for the store
	Ready    float64 `json:"ready_seconds"`          // after kill -9: the store is open
	Restored Usage   `json:"usage_after_restart"`    // when the first probe is due
	Drain    float64 `json:"drained_per_second"`     // from the first event to the last
	Bare     float64 `json:"bare_client_per_second"` // same bodies, same concurrency
	OfBare   float64 `json:"of_bare"`
	Peak     int64   `json:"peak_resident_bytes"` // in the drain
	CPU      float64 `json:"cpu_seconds"`         // likewise
}

// Growth compares rates before and after the backlog went through.
type Growth struct {
	Events       int     `json:"events"`
	IntakeBefore float64 `json:"intake_before"`
	IntakeAfter  float64 `json:"intake_after"`
	DrainBefore  float64 `json:"drain_before"`
	DrainAfter   float64 `json:"drain_after"`
}

// concurrency is the forwarder's default.
const concurrency = 16

// story is one run.
type story struct {
	settings
	sink   *Sink
	p      *Process
	bodies *bench.Bodies
	sent   int64 // alerts in accepted bodies
}

// TestEverything measures intake, idle, delay, an outage, a backlog with a
// kill -9, and its drain. It fails when an event is missing or came wrongly.
func TestEverything(t *testing.T) {
	s := &story{settings: required(t)}
	s.bodies = bench.NewBodies(s.Alerts, s.Size, s.Keys)
	keys := max(s.bodies.Keys(), bench.NewBodies(s.Alerts, s.Size, s.BacklogKeys).Keys(), delayKeys)
	var err error
	if s.sink, err = NewSink(keys); err != nil {
		t.Fatal(err)
	}
	defer s.sink.Close()
	s.sink.Delay = s.SinkDelay
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { s.p.Stop() }()
	r := &Report{}
	for _, step := range []func(context.Context, *Report) error{
		s.idle, s.intake, s.delay, s.young, s.outage, s.backlog, s.old, s.account,
	} {
		if err := step(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	r.show(t.Output(), s.Dir)
	if r.Missing != 0 || r.Wrong != 0 {
		t.Errorf("of %d events %d are missing, and %d came twice or out of order", r.Events, r.Missing, r.Wrong)
	}
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (s *story) start(ctx context.Context) (err error) {
	listen := "127.0.0.1:0"
	if s.p != nil { // again, and who sends does not ask for the port
		u, err := url.Parse(s.p.URL)
		if err != nil {
			return err
		}
		listen = u.Host
	}
	s.p, err = Start(ctx, []string{s.Program}, s.Dir, listen, "--callgoose-url", s.sink.URL, "--allow-unauthenticated",
		"--max-store", "64GiB", "--late-after", "1h")
	return err
}

func (s *story) load(connections int) *bench.Load {
	return &bench.Load{Target: bench.Target{URL: s.p.URL}, Bodies: s.bodies, Connections: connections}
}

// run sends a load and counts what has to arrive.
func (s *story) run(ctx context.Context, l *bench.Load) (bench.Measured, error) {
	m, err := l.Run(ctx)
	s.sent += int64(m.Alerts)
	return m, err
}

// close resolves what still fires, and waits until all has arrived.
func (s *story) close(ctx context.Context) error {
	n := s.bodies.Firing()
	if err := s.load(1).Resolve(ctx); err != nil {
		return err
	}
	s.sent += int64(n)
	return s.arrived(ctx)
}

// until polls.
func until(ctx context.Context, every time.Duration, ok func() (bool, error)) error {
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		if pause(ctx, every); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// arrived waits until the sink has everything. It gives up when nothing moves
// for two minutes.
func (s *story) arrived(ctx context.Context) error {
	last, moved := int64(-1), time.Now()
	return until(ctx, time.Millisecond, func() (bool, error) {
		got := s.sink.Received.Load()
		if got != last {
			last, moved = got, time.Now()
		} else if time.Since(moved) > 2*time.Minute {
			return false, fmt.Errorf("%d of %d events arrived, and then none for two minutes", got, s.sent)
		}
		return got >= s.sent, nil
	})
}

// settled waits until the forwarder has written down that everything arrived.
func (s *story) settled(ctx context.Context) error {
	if err := s.arrived(ctx); err != nil {
		return err
	}
	return s.status(ctx, func(st admin.Status) bool { return st.Queued == 0 })
}

func (s *story) status(ctx context.Context, ok func(admin.Status) bool) error {
	return until(ctx, 20*time.Millisecond, func() (bool, error) {
		st, err := s.p.Status.Status(ctx)
		if errors.Is(err, admin.ErrNoService) {
			return false, err
		}
		return err == nil && ok(st), nil
	})
}

func (s *story) idle(ctx context.Context, r *Report) error {
	s.say("idle: looking at it for 5 s")
	pause(ctx, time.Second)
	before := s.p.Usage()
	pause(ctx, 5*time.Second)
	r.Idle = Idle{Ready: s.p.Ready.Seconds(), Usage: s.p.Usage()}
	r.Idle.CPUPart = (r.Idle.Usage.CPU - before.CPU) / 5 * 100
	return ctx.Err()
}

func (s *story) intake(ctx context.Context, r *Report) (err error) {
	s.say("one fsync of the same bytes in the same directory")
	if r.Fsync, err = Fsync(ctx, s.Dir, s.bodies, 500); err != nil {
		return err
	}
	for _, connections := range s.Connections {
		var rounds []Columns
		for n := range s.Rounds {
			s.say("intake, %d connections, round %d of %d", connections, n+1, s.Rounds)
			c, err := s.columns(ctx, connections)
			if err != nil {
				return err
			}
			rounds = append(rounds, c)
		}
		slices.SortFunc(rounds, func(a, b Columns) int { return int(math.Copysign(1, a.OfDiscard-b.OfDiscard)) })
		r.Intake = append(r.Intake, rounds[len(rounds)/2])
	}
	return s.close(ctx)
}

// columns measures the three columns one after the other.
func (s *story) columns(ctx context.Context, connections int) (c Columns, err error) {
	c.Connections = connections
	if c.Discard, c.FsyncEach, err = Compare(ctx, s.Dir, s.Alerts, s.Size, connections, s.For); err != nil {
		return c, err
	}
	before := s.p.Usage()
	l := s.load(connections)
	l.Duration = s.For
	if c.Service, err = s.run(ctx, l); err != nil {
		return c, err
	}
	if err := s.settled(ctx); err != nil {
		return c, err
	}
	after := s.p.Usage()
	c.OfDiscard = c.Service.PerSecond / c.Discard.PerSecond
	c.CPUPer10k = (after.CPU - before.CPU) / float64(c.Service.Alerts) * 10_000
	c.WrittenEach = float64(after.Written-before.Written) / float64(c.Service.Webhooks)
	c.Peak = after.Peak
	return c, nil
}

// Compare measures the columns beside the service, with bodies of the same kind.
func Compare(ctx context.Context, dir string, alerts, size, connections int, d time.Duration) (discard, fsyncEach bench.Measured, err error) {
	measure := func(url string, stop func(), err error) (bench.Measured, error) {
		if err != nil {
			return bench.Measured{}, err
		}
		defer stop()
		l := &bench.Load{Target: bench.Target{URL: url}, Bodies: bench.NewBodies(alerts, size, 4*alerts*connections), Connections: connections, Duration: d}
		return l.Run(ctx)
	}
	if discard, err = measure(Discard()); err != nil {
		return discard, fsyncEach, err
	}
	fsyncEach, err = measure(FsyncEach(dir))
	return discard, fsyncEach, err
}

// delayKeys is how many alerts fire and recover, one by one.
const delayKeys = 500

func (s *story) delay(ctx context.Context, r *Report) error {
	s.say("from the 202 to the sink, %d webhooks of one alert, one by one", 2*delayKeys)
	bodies := bench.NewBodies(1, s.Size/max(s.Alerts, 1), delayKeys)
	arrived := make(chan time.Time, 1)
	s.sink.Hook(func(int, int) { arrived <- time.Now() })
	defer s.sink.Hook(nil)
	c, err := bench.NewConn(&bench.Target{URL: s.p.URL})
	if err != nil {
		return err
	}
	defer c.Close()
	var took []time.Duration
	for n := range 2 * delayKeys {
		code, err := c.Post(ctx, bodies.Body(nil, n))
		if err != nil || code != 202 {
			return fmt.Errorf("webhook answered %d: %w", code, err)
		}
		answered := time.Now()
		s.sent++
		select {
		case at := <-arrived:
			took = append(took, max(at.Sub(answered), 0)) // it may overtake the answer
		case <-time.After(time.Minute):
			return errors.New("an event did not arrive within a minute")
		}
		pause(ctx, 5*time.Millisecond) // quiet
	}
	r.Delay = bench.Percentiles(took)
	return s.settled(ctx)
}

// queue fills the queue while the sink is shut, until every alert is a queued event.
func (s *story) queue(ctx context.Context, events int) (bench.Measured, error) {
	s.sink.Shut()
	l := s.load(64)
	l.Count = max(events/s.Alerts, 1)
	m, err := s.run(ctx, l)
	if err != nil {
		return m, err
	}
	return m, s.split(ctx)
}

func (s *story) split(ctx context.Context) error {
	return s.status(ctx, func(st admin.Status) bool {
		return st.Alerts >= s.sent
	})
}

// drain opens the sink and measures from the first event to the last.
func (s *story) drain(ctx context.Context) (perSecond float64, err error) {
	before := s.sink.Received.Load()
	s.sink.Open()
	if err := s.arrived(ctx); err != nil {
		return 0, err
	}
	took := s.sink.Since()
	return float64(s.sink.Received.Load()-before) / took.Seconds(), s.settled(ctx)
}

// rates measures intake without delivery, and a drain, of a number of events.
func (s *story) rates(ctx context.Context, events int) (intake, drain float64, err error) {
	var in, out []float64
	for range s.Rounds {
		m, err := s.queue(ctx, events)
		if err != nil {
			return 0, 0, err
		}
		rate, err := s.drain(ctx)
		if err != nil {
			return 0, 0, err
		}
		in, out = append(in, m.PerSecond), append(out, rate)
	}
	return median(in), median(out), nil
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

func (s *story) young(ctx context.Context, r *Report) (err error) {
	if s.Young == 0 {
		return nil
	}
	s.say("intake and drain of %d events, the store being young", s.Young)
	r.Growth = &Growth{Events: s.Young}
	if r.Growth.IntakeBefore, r.Growth.DrainBefore, err = s.rates(ctx, s.Young); err != nil {
		return err
	}
	return s.close(ctx)
}

func (s *story) old(ctx context.Context, r *Report) (err error) {
	if s.Young == 0 {
		return nil
	}
	s.say("intake and drain of %d events, the store being old", s.Young)
	if r.Growth.IntakeAfter, r.Growth.DrainAfter, err = s.rates(ctx, s.Young); err != nil {
		return err
	}
	return s.close(ctx)
}

func (s *story) outage(ctx context.Context, r *Report) error {
	if s.Outage == 0 {
		return nil
	}
	s.say("the sink answers 503 for %s, 100 webhooks/s come in", s.Outage)
	calls := s.sink.Calls.Load()
	s.sink.Shut()
	began := time.Now()
	l := s.load(16)
	l.Duration, l.Progress = s.Outage, func(sent int) { time.Sleep(time.Until(began.Add(time.Duration(sent) * 10 * time.Millisecond))) }
	if _, err := s.run(ctx, l); err != nil {
		return err
	}
	o := &Outage{Seconds: time.Since(began).Seconds(), Calls: s.sink.Calls.Load() - calls, Queued: s.sent - s.sink.Received.Load()}
	opened := time.Now()
	if _, err := s.drain(ctx); err != nil {
		return err
	}
	o.First = s.sink.FirstAt().Sub(opened).Seconds()
	r.Outage = o
	return s.close(ctx)
}

func (s *story) backlog(ctx context.Context, r *Report) (err error) {
	if s.Backlog == 0 {
		return nil
	}
	s.bodies = bench.NewBodies(s.Alerts, s.Size, s.BacklogKeys)
	s.say("%d events of %d keys are queued, the sink being shut", s.Backlog, s.bodies.Keys())
	before := s.sent
	if _, err := s.queue(ctx, s.Backlog); err != nil {
		return err
	}
	b := &Backlog{Events: s.sent - before, Keys: s.bodies.Keys(), Usage: s.p.Usage()}
	r.Backlog = b
	s.say("kill -9, and a start")
	s.p.Kill()
	if err := s.start(ctx); err != nil {
		return err
	}
	b.Open, b.Ready = s.p.Open.Seconds(), s.p.Ready.Seconds()
	if err := s.status(ctx, func(st admin.Status) bool { return st.OldestQueuedAt != nil }); err != nil {
		return err
	}
	b.Restored = s.p.Usage()
	s.p.ForgetPeak()
	s.say("the drain")
	if b.Drain, err = s.drain(ctx); err != nil {
		return err
	}
	after := s.p.Usage()
	b.Peak, b.CPU = after.Peak, after.CPU
	s.say("the same by a bare HTTP client")
	if b.Bare, err = s.sink.Bare(ctx, concurrency, int(min(b.Events, 100_000))); err != nil {
		return err
	}
	b.OfBare = b.Drain / b.Bare
	return s.close(ctx)
}

func (s *story) account(_ context.Context, r *Report) error {
	r.Events, r.Wrong = s.sent, s.sink.Wrong.Load()
	r.Missing = s.sent - s.sink.Received.Load()
	return nil
}
