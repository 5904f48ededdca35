package worker

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// drop drops the dead letters, as an operator does.
func (r *stage) drop() {
	r.t.Helper()
	var dead []*event.Record
	if err := r.ledger.Do(r.t.Context(), func(tx *store.Tx) {
		dead = slices.Collect(tx.Records(event.Filter{Outcomes: []event.Outcome{event.Dead}}))
		for _, rec := range dead {
			Forget(tx, rec)
		}
	}); err != nil {
		r.t.Fatal(err)
	}
	if len(dead) == 0 {
		r.t.Fatal("there is no dead letter to drop")
	}
}

func (r *stage) last() *event.Record {
	r.t.Helper()
	list := r.records()
	return list[len(list)-1]
}

// An operator takes a recovery out of the queue, and what fired behind it: the incident is
// open at Callgoose, so the next recovery closes it.
func TestTheNextRecoveryClosesAnIncidentWhoseOwnWasDropped(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0))
	r.decide()
	r.settle(event.Delivered)
	r.post(minutes(2), 0, resolved("a", t0, minutes(2)))
	r.post(minutes(3), 0, firing("a", minutes(3)))
	r.decide()
	list := r.records()[1:]
	for _, rec := range list {
		if err := r.ledger.Do(t.Context(), func(tx *store.Tx) { Park(tx, rec, "parked") }); err != nil {
			t.Fatal(err)
		}
	}
	for _, rec := range list {
		if err := r.ledger.Do(t.Context(), func(tx *store.Tx) { Forget(tx, rec) }); err != nil {
			t.Fatal(err)
		}
	}
	r.post(minutes(9), 0, resolved("a", minutes(3), minutes(9)))
	r.decide()
	r.want(r.line(), "resolved pmm-a")
}

// Callgoose does not have it, and the incident is open.
func TestADroppedRecoveryGoesOutWhenPMMSaysItAgain(t *testing.T) {
	r := newStage(t, SplitConfig{Collapse: true, Outage: func() bool { return true }})
	r.post(minutes(1), 0, firing("a", t0))
	r.decide()
	r.settle(event.Delivered)
	r.post(minutes(10), 0, resolved("a", t0, minutes(10)))
	r.decide()
	r.settle(event.Dead)
	first := r.last()
	r.drop()
	r.post(minutes(20), 0, resolved("a", minutes(10), minutes(10)))
	r.decide()
	r.want(r.line(), "resolved pmm-a")
	if r.last().ID == first.ID {
		t.Error("two bodies have one id")
	}
	r.settle(event.Delivered)
	r.post(minutes(30), 0, resolved("a", minutes(10), minutes(10)))
	r.decide()
	r.want(r.became(), "delivered", "delivered", "suppressed already_resolved")
}

// The incident of before is open: what fires now is closed by its own recovery alone.
func TestAnEpisodeAfterADroppedRecoveryIsNotCollapsed(t *testing.T) {
	r := newStage(t, SplitConfig{Collapse: true, Outage: func() bool { return true }})
	r.post(minutes(1), 0, firing("a", t0))
	r.decide()
	r.settle(event.Delivered)
	r.post(minutes(10), 0, resolved("a", t0, minutes(10)))
	r.decide()
	r.settle(event.Dead)
	r.drop()
	r.post(minutes(20), 0, firing("a", minutes(20)))
	r.post(minutes(21), 0, resolved("a", minutes(20), minutes(21)))
	r.decide()
	r.want(r.line(), "firing pmm-a", "resolved pmm-a")
}

// An id stands for one body: Callgoose may know that of what was dropped.
func TestWhatFiresAfterItsDeadLetterWasDroppedHasAnIDOfItsOwn(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0))
	r.decide()
	r.settle(event.Dead)
	first := r.last()
	r.drop()
	changed := firing("a", t0)
	changed.Annotations = map[string]string{"summary": "still down"}
	r.post(minutes(2), 0, resolved("a", t0, minutes(2))) // of what Callgoose does not know
	r.post(minutes(3), 0, changed)
	r.decide()
	r.want(r.became(), "suppressed already_resolved", "queued")
	if r.last().ID == first.ID {
		t.Error("two bodies have one id")
	}
	r.settle(event.Delivered)
	r.post(minutes(9), 0, resolved("a", t0, minutes(9)))
	r.decide()
	r.want(r.line(), "resolved pmm-a")
}

// The incident of the earlier firing is open, whose recovery PMM never sent.
func TestARecoveryGoesOutThoughItsFiringWasDroppedWhenAnEarlierOneIsOpen(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0))
	r.decide()
	r.settle(event.Delivered)
	r.post(minutes(10), 0, firing("a", minutes(10)))
	r.decide()
	r.settle(event.Dead)
	r.drop()
	r.post(minutes(20), 0, resolved("a", minutes(10), minutes(20)))
	r.decide()
	r.want(r.line(), "resolved pmm-a")
}

// What cannot be read again dies each time: the repeat has bytes that can.
func TestARepeatOfADamagedNotificationIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newStage(t, SplitConfig{})
		r.post(minutes(1), 0, firing("a", t0))
		r.decide()
		r.damaged = 1
		r.notes.kept = map[uint64]*envelope{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		d := NewDeliverer(DeliverConfig{Logger: r.cfg.Logger}, r.ledger, r.build, taker{})
		go func() { ended <- d.Run(ctx) }()
		time.Sleep(time.Second)
		first := r.last()
		if first.Outcome != event.Dead {
			t.Errorf("the damaged one is %s", first.Outcome)
		}
		for n := range 2 {
			r.post(minutes(30*n+30), 0, firing("a", t0))
			r.decide()
			d.Wake()
			time.Sleep(time.Second)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := r.became()[1:]; !slices.Equal(got, []string{"delivered", "suppressed repeat"}) || r.records()[1].ID == first.ID {
			t.Errorf("the repeats became %q", got)
		}
	})
}

// Callgoose's filters close an incident by the name that opened it.
func TestARecoveryShowsTheNameOfItsFiring(t *testing.T) {
	for name, byName := range map[string]bool{"alert, then alertname": false, "alertname, then alert": true} {
		t.Run(name, func(t *testing.T) {
			r := newStage(t, SplitConfig{Form: Form{ByAlertname: byName}})
			shown := func() (list []any) {
				for _, rec := range r.records() {
					if rec.IsEvent() {
						list = append(list, r.sent(rec)["commonLabels"].(map[string]any)["alertname"])
					}
				}
				return list
			}
			r.post(minutes(1), 0, firing("a", t0), firing("b", t0))
			r.decide()
			r.settle(event.Delivered)
			r.cfg.Form.ByAlertname = !byName
			r.reopen(false)
			r.post(minutes(2), 0, firing("c", t0))
			r.post(minutes(9), 0, resolved("a", t0, minutes(9)))
			r.post(minutes(10), 0, resolved("b", t0, minutes(10)))
			r.decide()
			want := []any{"MySQL Down [a]", "MySQL Down [b]", "MySQL Down", "MySQL Down [a]", "MySQL Down [b]"}
			if byName { // the incident of the name is closed by its last recovery
				want = []any{"MySQL Down", "MySQL Down", "MySQL Down [c]", "MySQL Down"}
			}
			if got := shown(); !slices.Equal(got, want) {
				t.Errorf("shown are %q, want %q", got, want)
			}
		})
	}
}

// The Alertmanagers of a pair share what they told: the recovery of an episode that
// goes on may come from the other one.
func TestAnEpisodeThatGoesOnEndsByTheOtherPMMsWord(t *testing.T) {
	r := newStage(t, SplitConfig{})
	other := t0.Add(10 * time.Second)
	r.post(minutes(1), 0, firing("a", t0))
	r.post(minutes(2), 0, firing("a", other))
	r.post(minutes(5), 0, resolved("a", t0, minutes(5)))
	r.post(minutes(6), 0, firing("a", t0))
	r.decide()
	r.settle(event.Delivered)
	r.post(minutes(20), 0, resolved("a", other, minutes(20)))
	r.decide()
	r.want(r.line(), "resolved pmm-a")
}

// A firing whose request began before PMM's last word that it is over.
func TestAFiringThatOverlapsARepeatedRecoveryIsLate(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0))
	r.post(minutes(10), 0, resolved("a", t0, minutes(10)))
	r.post(minutes(24*60), 0, resolved("a", minutes(10), minutes(10)))
	r.post(minutes(24*60+1), 2*time.Minute, firing("a", t0))
	r.decide()
	r.want(r.became(), "queued", "queued", "suppressed already_resolved", "suppressed late")
	r.settle(event.Dead) // its record is found still
	r.post(minutes(24*60+9), 0, resolved("a", minutes(10), minutes(10)))
	r.decide()
	r.want(r.line(), "resolved pmm-a")
}

// A recovery that was said after the first is known by its end, too.
func TestTheSecondRecoveryOfAnEpisodeIsStaleAfterIt(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0))
	r.post(minutes(10), 0, resolved("a", t0, minutes(10)))
	r.post(minutes(11), 0, resolved("a", t0, minutes(11)))
	r.post(minutes(12), 0, firing("a", t0))
	r.post(minutes(13), 0, resolved("a", t0, minutes(11)))
	r.decide()
	r.want(r.became(), "queued", "queued", "suppressed already_resolved", "queued", "suppressed stale")
}

// taker is a Callgoose that takes all.
type taker struct{}

func (taker) Renew() {}

func (taker) Send(context.Context, []byte) (callgoose.Reply, error) {
	return callgoose.Reply{Status: 201, ID: "c", Effect: "created"}, nil
}
