package worker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// Queue is what the worker needs of the stream of notifications.
type Queue interface {
	// Last is the newest envelope; Wake yields when it moved.
	Last() uint64
	Wake() <-chan struct{}
	// First is the oldest sequence still stored, one past the newest for none.
	First(ctx context.Context) (uint64, error)
	// Oldest is First, or what is gone before it because it was damaged.
	Oldest(ctx context.Context) (uint64, error)
	Read(ctx context.Context, seq uint64) ([]event.Notification, error)
	Publish(ctx context.Context, n event.Notification) (event.Position, error)

	// The mark of what is settled, for a ledger that is lost.
	SetMark(m event.Mark)
	PublishMark(ctx context.Context) (uint64, error)
	NewestMark(ctx context.Context) (event.Mark, error)

	// Room and Purge are for retention. Refused yields when intake had to refuse a
	// notification for want of room.
	Room() (used, limit, free int64)
	Refused() <-chan struct{}
	Purge(ctx context.Context, upTo uint64) error
}

// SplitConfig are the rules of the splitter.
type SplitConfig struct {
	Form        Form          // of the bodies decided on from now on
	ResendAfter time.Duration // 0 = off
	Collapse    bool          // --on-backlog collapse
	Hold        Hold          // of recoveries that may be none
	Storm       StormRule     // of firings, when too many come at once
	// NamedEvery is how exactly it is kept when PMM last named an open alert. 0 = 1h.
	NamedEvery time.Duration
	// Claim reports whether an event may be claimed as it is queued, because
	// Callgoose is up. May be nil: never.
	Claim func() bool
	// Outage reports whether Callgoose takes nothing now. May be nil: never.
	Outage func() bool
	// Decided is called when events may have been queued. May be nil.
	Decided  func()
	Logger   *slog.Logger
	Observer Observer // nil = none; told only of events settled before any attempt
}

// Splitter turns notifications into events: one goroutine, Run.
type Splitter struct {
	cfg    SplitConfig
	queue  Queue
	notes  *Notes
	ledger *store.Store
	log    *slog.Logger
	split  atomic.Int64
	behind atomic.Bool   // there are notifications not yet decided on
	began  uint64        // newest notification at the start
	turn   chan struct{} // as in Deliverer
	ended  chan struct{} // closed when Run has returned
	alone  bool          // CatchUp decides, not Run

	// Owned by Run.
	at     event.Position    // decided on, durably
	opened map[string]*index // open alerts by source and name, for adoption
	warned map[string]bool   // keys of open alerts that PMM does not name any more
	clocks clocks
	ahead  time.Duration // of clocks, in the last step
	jumped time.Time     // when the wall clock was set forward, or the machine slept, last; by the wall clock
}

// NewSplitter makes a splitter. Begin comes before it; it does
// nothing before Run.
func NewSplitter(cfg SplitConfig, queue Queue, notes *Notes, ledger *store.Store) *Splitter {
	cfg.Observer = cmp.Or[Observer](cfg.Observer, silent{})
	cfg.Form.Layout = formLayout
	cfg.NamedEvery = cmp.Or(cfg.NamedEvery, time.Hour)
	s := &Splitter{
		cfg: cfg, queue: queue, notes: notes, ledger: ledger, log: cfg.Logger.With("component", "splitter"),
		turn: make(chan struct{}), ended: make(chan struct{}), began: queue.Last(), at: ledger.Summary().Progress, warned: map[string]bool{}, opened: map[string]*index{}, clocks: newClocks(time.Now()),
	}
	s.behind.Store(next(s.at) <= s.began)
	return s
}

// Split counts the alerts decided on, of those accepted since the start. Behind
// says that there are more to decide on, of whatever age. Safe concurrently.
func (s *Splitter) Split() int64 { return s.split.Load() }

// Behind reports whether notifications wait for a decision. See Split.
func (s *Splitter) Behind() bool { return s.behind.Load() }

// Alive returns nil once the loop of Run has come round, an error when ctx ends
// before that. Safe concurrently.
func (s *Splitter) Alive(ctx context.Context) error { return turned(ctx, s.turn) }

// How much one transaction decides on at most: so many alerts, and for so long.
// Deliveries wait for it.
const (
	stepAlerts = 500
	stepTime   = 20 * time.Millisecond
)

// whole is the Note and Item of a position that stands for a whole envelope.
const whole = math.MaxUint32

// next is the sequence in which splitting goes on behind a position.
func next(at event.Position) uint64 {
	if at.Note == whole || at.IsZero() {
		return at.Seq + 1
	}
	return at.Seq // stopped in the middle of it
}

// Decided reports whether all is decided on up to the envelope with that sequence.
func Decided(tx *store.Tx, seq uint64) bool { return next(tx.Progress()) > seq }

// Run splits until ctx ends or the store fails.
func (s *Splitter) Run(ctx context.Context) error {
	defer close(s.ended)
	for {
		more, err := s.step(ctx)
		if err != nil {
			return ignore(ctx, err)
		}
		if more {
			select {
			case s.turn <- struct{}{}:
			case <-ctx.Done():
				return nil
			default:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.queue.Wake():
		case s.turn <- struct{}{}:
		}
	}
}

// ignore is err, unless it came from the stop.
func ignore(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// CatchUp splits what is waiting for it, without Run: for a directory with no service.
func (s *Splitter) CatchUp(ctx context.Context) error {
	s.alone = true
	for {
		if more, err := s.step(ctx); err != nil || !more {
			return err
		}
	}
}

// step decides on the next alerts in one transaction. What is read and taken
// apart is so before it: nothing waits for JetStream inside the ledger.
//
// If we die before the commit, splitting goes on at the same place; after it,
// behind the last alert that it decided on, inside a body too.
func (s *Splitter) step(ctx context.Context) (more bool, err error) {
	last := s.queue.Last()
	if next(s.at) > last {
		s.behind.Store(false)
		clear(s.opened)
		return false, nil
	}
	s.behind.Store(true)
	s.look(time.Now())
	loaded, err := s.load(ctx, last)
	if err != nil {
		return false, err
	}
	var b *batch
	err = s.ledger.Do(ctx, func(tx *store.Tx) {
		b = &batch{Splitter: s, ctx: ctx, tx: tx, at: tx.Progress(), rebuild: tx.Rebuild(), until: time.Now().Add(stepTime)}
		b.run(loaded)
	})
	if err != nil {
		return false, fmt.Errorf("decide behind notification %s: %w", s.at.NotificationID(), err)
	}
	faultpoint.Here("decided")
	s.at = b.at
	s.split.Add(b.young)
	for _, tell := range b.after {
		tell()
	}
	if s.cfg.Decided != nil {
		s.cfg.Decided()
	}
	return true, nil
}

// look notes when the wall clock went on while this process did not.
func (s *Splitter) look(now time.Time) {
	ahead := s.clocks.ahead(now)
	if ahead > s.ahead+clockSlack {
		s.jumped = now.Round(0)
	}
	s.ahead = ahead
}

// stretch is an envelope that was read, or a run of them that cannot be.
type stretch struct {
	first, last uint64
	notes       []*note
	err         error // why it cannot be read
}

// load reads and takes apart what one step may decide on.
func (s *Splitter) load(ctx context.Context, last uint64) (list []stretch, err error) {
	began, alerts, size := time.Now(), 0, 0
	for seq := next(s.at); seq <= last && alerts < stepAlerts && size < keepNotes && time.Since(began) < stepTime; seq++ {
		e, err := s.notes.envelope(ctx, seq)
		switch {
		case event.Unreadable(err):
			st := stretch{first: seq, last: seq, err: err}
			if first, ferr := s.queue.First(ctx); ferr == nil && first > seq {
				st.last = min(first-1, last) // all of these are gone
			}
			list, seq = append(list, st), st.last
			continue
		case err != nil:
			return nil, err
		}
		st := stretch{first: seq, last: seq}
		size += e.size
		for _, n := range e.notes {
			st.notes = append(st.notes, n())
			alerts += len(st.notes[len(st.notes)-1].members)
		}
		list = append(list, st)
	}
	return list, nil
}

// batch is the work of one transaction.
type batch struct {
	*Splitter
	ctx     context.Context //nolint:containedctx // lives as long as one step
	tx      *store.Tx
	at      event.Position // decided on
	rebuild *store.Rebuild // nil = nothing is being rebuilt
	until   time.Time
	alerts  int
	young   int64    // of them, accepted since the start
	after   []func() // to be told once it is durable
	told    string   // the notification whose unusable alerts were logged last
}

func (b *batch) run(loaded []stretch) {
	for i := range loaded {
		st := &loaded[i]
		if st.err != nil {
			b.unreadable(st)
		} else if !b.envelope(st) {
			break
		}
		b.at = event.Position{Seq: st.last, Note: whole, Item: whole}
		if b.rebuild != nil && st.last >= b.rebuild.Until {
			b.endRebuild()
		}
	}
	b.tx.SetProgress(b.at)
}

// unreadable keeps a dead letter for envelopes that cannot be read: the splitter
// is never stuck behind them, and never silent about them.
func (b *batch) unreadable(st *stretch) {
	count := int64(st.last - st.first + 1)
	b.tx.Count("damaged", count)
	b.tell(func() {
		b.log.Error("accepted notifications cannot be read from the store", "stream", "NOTIFICATIONS",
			"seq", st.first, "until", st.last, "count", count, "err", st.err)
	})
	n := split(event.Notification{Err: fmt.Errorf("%w (%d messages)", st.err, count)}, event.Position{Seq: st.first})
	b.candidate(&n.members[0])
}

// tell runs fn once the transaction is durable.
func (b *batch) tell(fn func()) { b.after = append(b.after, fn) }

// envelope decides on the notifications of one message. It reports whether all
// of it is decided on.
func (b *batch) envelope(st *stretch) (done bool) {
	for _, n := range st.notes {
		if len(n.members) > 0 && n.members[0].pos.Compare(b.at) > 0 {
			b.count(n)
		}
		for i := range n.members {
			c := &n.members[i]
			if c.pos.Compare(b.at) <= 0 {
				continue // decided on in an earlier step
			}
			if b.alerts >= stepAlerts || b.alerts > 0 && time.Now().After(b.until) {
				return false
			}
			if b.candidate(c); b.tx.Err() != nil {
				return false
			}
			b.at = c.pos
			b.alerts++
			if c.pos.Seq > b.began && c.again == nil {
				b.young++
			}
		}
	}
	return true
}

// count counts a notification, once.
func (b *batch) count(n *note) {
	if n.fromPMM() {
		b.tx.SetHeard(n.Source, n.ReceivedAt)
	}
	if n.Origin != event.FromPMM && n.Origin != event.Imported {
		return
	}
	b.tx.Count("notifications", 1)
	if n.group != nil && n.group.TruncatedAlerts > 0 {
		b.tx.Count("truncated", n.group.TruncatedAlerts)
	}
}
