package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

// Plan is a bench of a forwarder that it starts itself, with a sink behind it.
type Plan struct {
	Program     string        // path of pmm-callgoose
	Dir         string        // an empty directory, on the disk that is meant
	Connections []int         // of the intake, each measured
	For         time.Duration // how long each column of the intake is measured
	Rounds      int           // how often; the median counts
	Alerts      int           // in each body
	Size        int           // of a body
	Keys        int           // incident keys
	Backlog     int           // events queued for the drain
	BacklogKeys int           // incident keys of those
	Outage      time.Duration // how long the sink answers 503, at 100 webhooks/s; 0 = leave it out
	Young       int           // events of the drain before and after the backlog, for the growth; 0 = leave it out
	SinkDelay   time.Duration // before each answer of the sink
	// Say gets a line for each step, Progress how far a step is. Both may be nil.
	Say      func(line string)
	Progress func(done, of int)
}

// Report is what it came to. Rates are per second, times in milliseconds or as
// their names say.
type Report struct {
	Idle    Idle      `json:"idle"`
	Fsync   Latency   `json:"fsync_ms"` // of the same bytes in the same directory
	Intake  []Columns `json:"intake"`
	Delay   Latency   `json:"delay_ms"` // from the 202 to the sink, on a quiet system
	Outage  *Outage   `json:"outage,omitempty"`
	Backlog *Backlog  `json:"backlog,omitempty"`
	Growth  *Growth   `json:"growth,omitempty"`

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
	Connections int      `json:"connections"`
	Service     Measured `json:"service"`
	Discard     Measured `json:"discard"`
	FsyncEach   Measured `json:"fsync_each"`
	OfDiscard   float64  `json:"of_discard"` // Service / Discard
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

// story is one run of a plan.
type story struct {
	Plan
	sink   *Sink
	p      *Process
	bodies *Bodies
	sent   int64 // alerts in accepted bodies
}

// Run carries out the plan.
func (p Plan) Run(ctx context.Context) (r *Report, err error) {
	if p.Say == nil {
		p.Say = func(string) {}
	}
	if p.Progress == nil {
		p.Progress = func(int, int) {}
	}
	s := &story{Plan: p, bodies: NewBodies(p.Alerts, p.Size, p.Keys)}
	keys := max(s.bodies.Keys(), NewBodies(p.Alerts, p.Size, p.BacklogKeys).Keys(), delayKeys)
	if s.sink, err = NewSink(keys); err != nil {
		return nil, err
	}
	defer s.sink.Close()
	s.sink.Delay = p.SinkDelay
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	defer func() { s.p.Stop() }()
	r = &Report{}
	for _, step := range []func(context.Context, *Report) error{
		s.idle, s.intake, s.delay, s.young, s.outage, s.backlog, s.old, s.account,
	} {
		if err := step(ctx, r); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (s *story) say(format string, args ...any) { s.Say(fmt.Sprintf(format, args...)) }

func (s *story) start(ctx context.Context) (err error) {
	listen := "127.0.0.1:0"
	if s.p != nil { // again, and who sends does not ask for the port
		u, err := url.Parse(s.p.URL)
		if err != nil {
			return err
		}
		listen = u.Host
	}
	s.p, err = Start(ctx, s.Program, s.Dir, listen, "--callgoose-url", s.sink.URL, "--allow-unauthenticated",
		"--max-store", "64GiB", "--late-after", "1h")
	return err
}

func (s *story) load(connections int) *Load {
	return &Load{Target: Target{URL: s.p.URL}, Bodies: s.bodies, Connections: connections}
}

// run sends a load and counts what has to arrive.
func (s *story) run(ctx context.Context, l *Load) (Measured, error) {
	if l.Count > 0 {
		l.Progress = func(n int) { s.Progress(n, l.Count) }
	}
	m, err := l.Run(ctx)
	s.sent += int64(m.Alerts)
	return m, err
}

// close resolves what still fires, and waits until all has arrived.
func (s *story) close(ctx context.Context) error {
	n := len(s.bodies.open()) * s.bodies.alerts
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
		if sleep(ctx, every); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// arrived waits until the sink has everything. It gives up when nothing moves
// for two minutes.
func (s *story) arrived(ctx context.Context) error {
	from, last, moved := s.sink.Received.Load(), int64(-1), time.Now()
	return until(ctx, time.Millisecond, func() (bool, error) {
		got := s.sink.Received.Load()
		if got != last {
			last, moved = got, time.Now()
		} else if time.Since(moved) > 2*time.Minute {
			return false, fmt.Errorf("%d of %d events arrived, and then none for two minutes", got, s.sent)
		}
		s.Progress(int(got-from), int(s.sent-from))
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
	sleep(ctx, time.Second)
	before := s.p.Usage()
	sleep(ctx, 5*time.Second)
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
func Compare(ctx context.Context, dir string, alerts, size, connections int, d time.Duration) (discard, fsyncEach Measured, err error) {
	measure := func(url string, stop func(), err error) (Measured, error) {
		if err != nil {
			return Measured{}, err
		}
		defer stop()
		l := &Load{Target: Target{URL: url}, Bodies: NewBodies(alerts, size, 4*alerts*connections), Connections: connections, Duration: d}
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
	bodies := NewBodies(1, s.Size/max(s.Alerts, 1), delayKeys)
	arrived := make(chan time.Time, 1)
	hook := func(int, bool) { arrived <- time.Now() }
	s.sink.hook.Store(&hook)
	defer s.sink.hook.Store(nil)
	c, err := NewConn(&Target{URL: s.p.URL})
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
		sleep(ctx, 5*time.Millisecond) // quiet
	}
	r.Delay = latency(took)
	return s.settled(ctx)
}

// queue fills the queue while the sink is shut, until every alert is an event in line.
func (s *story) queue(ctx context.Context, events int) (Measured, error) {
	s.sink.Shut()
	l := s.load(64)
	l.Count = max(events/s.bodies.alerts, 1)
	m, err := s.run(ctx, l)
	if err != nil {
		return m, err
	}
	return m, s.split(ctx)
}

func (s *story) split(ctx context.Context) error {
	return s.status(ctx, func(st admin.Status) bool {
		s.Progress(int(st.Alerts), int(s.sent))
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
	l.Duration, l.Every = s.Plan.Outage, 10*time.Millisecond
	if _, err := s.run(ctx, l); err != nil {
		return err
	}
	o := &Outage{Seconds: time.Since(began).Seconds(), Calls: s.sink.Calls.Load() - calls, Queued: s.sent - s.sink.Received.Load()}
	opened := time.Now()
	if _, err := s.drain(ctx); err != nil {
		return err
	}
	o.First = time.Unix(0, s.sink.first.Load()).Sub(opened).Seconds()
	r.Outage = o
	return s.close(ctx)
}

func (s *story) backlog(ctx context.Context, r *Report) (err error) {
	if s.Backlog == 0 {
		return nil
	}
	s.bodies = NewBodies(s.Alerts, s.Size, s.BacklogKeys)
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
