package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// Form is what the bytes of a body depend on beside its notification: the
// settings in force when it was decided on, and the layout of the program that
// did. Its number stands in the record, so that the bytes stay the same whatever
// is changed later. A program that makes a newer layout still builds the older.
type Form struct {
	Layout      int           `json:"layout"`
	From        string        `json:"from"` // the flat key "source": --callgoose-from
	ByAlertname bool          `json:"by_alertname,omitempty"`
	LateAfter   time.Duration `json:"late_after"` // 0 = never say so
	ShortLength int           `json:"short_length,omitempty"`
	UrgencyHigh []string      `json:"urgency_high,omitempty"`
	// Plain leaves out the words about a recovery that is not confirmed.
	Plain bool `json:"plain,omitempty"`
}

// formLayout is the newest layout.
const formLayout = 1

func (f Form) String() string {
	b, _ := json.Marshal(f) // it holds nothing that cannot be encoded
	return string(b)
}

// namesIncidents reports whether a form is one of --incident-by alertname.
func namesIncidents(form string) bool { return strings.Contains(form, `"by_alertname":true`) }

// Notes reads what came in, taken apart. Safe concurrently.
type Notes struct {
	read    func(context.Context, uint64) ([]event.Notification, error)
	reading chan struct{} // held by who reads: an envelope takes several times its size meanwhile

	mu    sync.Mutex // guards the fields below
	kept  map[uint64]*envelope
	order []uint64 // of kept, the oldest first
	size  int      // of their bodies, bytes
}

// envelope is one message of NOTIFICATIONS.
type envelope struct {
	size  int
	notes []func() *note // each taken apart when it is asked for
}

// keepNotes bounds the bodies kept, bytes; taken apart they take about three times as
// much. What is waiting is read in the order in which it came in, so that each envelope
// is read once.
const keepNotes = 2 << 20

// NewNotes keeps what read returns.
func NewNotes(read func(context.Context, uint64) ([]event.Notification, error)) *Notes {
	return &Notes{read: read, reading: make(chan struct{}, 1), kept: map[uint64]*envelope{}}
}

func (k *Notes) envelope(ctx context.Context, seq uint64) (*envelope, error) {
	if e := k.known(seq); e != nil {
		return e, nil
	}
	select {
	case k.reading <- struct{}{}:
		defer func() { <-k.reading }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if e := k.known(seq); e != nil { // read meanwhile
		return e, nil
	}
	list, err := k.read(ctx, seq)
	if err != nil {
		return nil, err
	}
	e := &envelope{notes: make([]func() *note, len(list))}
	for i, n := range list {
		e.size += len(n.Body)
		pos := event.Position{Seq: seq, Note: uint32(i)}
		e.notes[i] = sync.OnceValue(func() *note { return split(n, pos) })
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept[seq], k.order, k.size = e, append(k.order, seq), k.size+e.size
	for k.size > keepNotes && len(k.order) > 1 {
		k.size -= k.kept[k.order[0]].size
		delete(k.kept, k.order[0])
		k.order = k.order[1:]
	}
	return e, nil
}

func (k *Notes) known(seq uint64) *envelope {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[seq]
}

// at is the notification that a position belongs to.
func (k *Notes) at(ctx context.Context, pos event.Position) (*note, error) {
	e, err := k.envelope(ctx, pos.Seq)
	if err != nil {
		return nil, fmt.Errorf("notification %s: %w", pos.NotificationID(), err)
	}
	if int(pos.Note) >= len(e.notes) {
		return nil, fmt.Errorf("notification %s: %w", pos.NotificationID(), event.ErrDamaged)
	}
	return e.notes[pos.Note](), nil
}

// Builder makes the bytes that are posted for an event. Safe concurrently.
type Builder struct {
	notes  *Notes
	ledger *store.Store
	forms  sync.Map // number -> Form
}

// NewBuilder makes a builder.
func NewBuilder(notes *Notes, ledger *store.Store) *Builder {
	return &Builder{notes: notes, ledger: ledger}
}

// Body is what is posted for the event of r when its claim was made at
// claimedAt (zero = nothing is said about lateness): the same bytes whenever it is
// asked. event.ErrGone or event.ErrDamaged when its notification cannot be read.
func (b *Builder) Body(ctx context.Context, r *event.Record, claimedAt time.Time) ([]byte, error) {
	n, err := b.notes.at(ctx, r.Pos)
	if err != nil {
		return nil, err
	}
	if n.Err != nil {
		return nil, fmt.Errorf("notification %s: %w", r.Notification, n.Err)
	}
	alert := n.alert(r.Pos.Item)
	if alert == nil || alert.Firing != (r.Status == event.Firing) {
		return nil, fmt.Errorf("notification %s holds no such alert: %w", r.Notification, event.ErrDamaged)
	}
	form, err := b.form(r.Facts.Form)
	if err != nil {
		return nil, err
	}
	labels, annotations := alert.Labels, alert.Annotations
	if r.Facts.Adopted {
		annotations = r.Facts.Annotations
		if labels = r.Labels; r.Brief {
			if err := b.ledger.View(func(tx *store.Tx) { labels = tx.Labels(r.Key) }); err != nil {
				return nil, err
			}
		}
	}
	out := callgoose.Alert{
		Status: string(r.Status), Raw: alert.Raw, GroupLabels: n.group.GroupLabels,
		Labels: labels, Annotations: annotations,
		Fingerprint: event.Fingerprint(r.Key), HasFinger: alert.Fingerprint != "",
		Source: form.From, IncidentKey: r.Key, EventID: r.ID, UniqueName: !form.ByAlertname,
		Suffix: r.Facts.Suffix, Link: alert.Link, Reopened: r.Facts.Reopened, RecoveryWords: !form.Plain,
		ShortLength: form.ShortLength, UrgencyHigh: form.UrgencyHigh,
		Envelope: make([]callgoose.Member, 0, len(n.group.Envelope)), Members: len(n.group.Alerts),
	}
	if r.Status == event.Resolved { // what was adopted says nothing of how it ended
		out.Recovery = callgoose.RecoveryKind(alert.Annotations)
	}
	if r.Facts.Reconciled {
		out.Reconciled = map[event.Status]string{event.Firing: "opened", event.Resolved: "closed"}[r.Status]
	}
	for _, f := range n.group.Envelope {
		out.Envelope = append(out.Envelope, callgoose.Member(f))
	}
	body := callgoose.Body(out)
	if by := claimedAt.Sub(r.Facts.Since); form.LateAfter > 0 && !claimedAt.IsZero() && by > form.LateAfter {
		return callgoose.Late(body, by)
	}
	return body, nil
}

// Raw is the alert of r as it came.
func (b *Builder) Raw(ctx context.Context, r *event.Record) ([]byte, error) {
	n, err := b.notes.at(ctx, r.Pos)
	if err != nil {
		return nil, err
	}
	return n.raw(r.Pos.Item), n.Err
}

func (b *Builder) form(number uint32) (f Form, err error) {
	if known, ok := b.forms.Load(number); ok {
		return known.(Form), nil
	}
	err = b.ledger.View(func(tx *store.Tx) {
		if err := json.Unmarshal([]byte(tx.Form(number)), &f); err != nil {
			tx.Fail(fmt.Errorf("form %d of a body: %w: %w", number, event.ErrDamaged, err))
		}
	})
	if err == nil && f.Layout > formLayout {
		err = fmt.Errorf("form %d of a body: %w", number, event.ErrNewer)
	}
	if err == nil {
		b.forms.Store(number, f)
	}
	return f, err
}
