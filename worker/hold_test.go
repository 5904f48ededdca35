package worker

import (
	"slices"
	"testing"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// lost is a recovery of an alert of PMM's templates, or not, that rests on lost data.
func lost(name string, template bool, at, ended time.Time) member {
	a := resolved(name, at, ended)
	a.Annotations = map[string]string{"grafana_state_reason": "MissingSeries"}
	if template {
		a.Labels["percona_alerting"] = "1"
	}
	return a
}

func TestWhichRecoveriesAreHeld(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	both := Hold{Hollow: 2 * time.Hour, Recovery: 5 * time.Minute}
	byHand := func(m member) member { m.Annotations = nil; return m }
	for _, tt := range []struct {
		name string
		hold Hold
		m    member
		from event.Origin
		want time.Duration
	}{
		{"none without a setting", Hold{}, lost("a", true, now, now), event.FromPMM, 0},
		{"lost data of a template", Hold{Hollow: time.Hour}, lost("a", true, now, now), event.FromPMM, time.Hour},
		{"a series that is gone in a rule of one's own is the recovery", Hold{Hollow: time.Hour}, lost("a", false, now, now), event.FromPMM, 0},
		{"unless a label says otherwise", Hold{Hollow: time.Hour, Match: map[string]string{"instance": "a"}}, lost("a", false, now, now), event.FromPMM, time.Hour},
		{"another label", Hold{Hollow: time.Hour, Match: map[string]string{"instance": "b"}}, lost("a", false, now, now), event.FromPMM, 0},
		{"a true recovery is not hollow", Hold{Hollow: time.Hour}, resolved("a", now, now), event.FromPMM, 0},
		{"a true recovery may be a flap", both, resolved("a", now, now), event.FromPMM, 5 * time.Minute},
		{"the longer of the two", both, lost("a", true, now, now), event.FromPMM, 2 * time.Hour},
		{"what a person closes goes out", both, byHand(resolved("a", now, now)), event.FromService, 0},
		{"what PMM's lists say goes out", both, resolved("a", now, now), event.Reconciled, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := split(event.Notification{Source: "pmm", Origin: tt.from, ReceivedAt: now, Body: body(t, tt.m)}, event.Position{Seq: 1})
			c := &n.members[0]
			d := tt.hold.of(c, c.alert.Labels, now)
			if want := now.Add(tt.want); tt.want > 0 && !d.until.Equal(want) || tt.want == 0 && !d.until.IsZero() {
				t.Errorf("held until %s, received at %s", d.until, now)
			}
			if d = tt.hold.of(c, c.alert.Labels, now.Add(tt.want)); !d.until.IsZero() {
				t.Errorf("held when its time is over, until %s", d.until)
			}
		})
	}
}

// opened is a stage on which alert a fires at Callgoose, with the time.
func opened(t *testing.T, cfg SplitConfig) (*stage, time.Time) {
	now := time.Now().UTC().Truncate(time.Second)
	r := newStage(t, cfg)
	r.post(now.Add(-time.Hour), 0, firing("a", now.Add(-time.Hour)))
	r.decide()
	r.settle(event.Delivered)
	return r, now
}

func TestAnAlertThatFiresWhileItsRecoveryIsHeldGoesOn(t *testing.T) {
	r, now := opened(t, SplitConfig{Hold: Hold{Recovery: 5 * time.Minute}})
	began := now.Add(-time.Hour)
	for i := range 3 { // with the same start, and with new ones
		ended := now.Add(time.Duration(2*i) * time.Second)
		r.post(ended, 0, resolved("a", began, ended))
		r.decide()
		r.want(r.line(), "resolved pmm-a")
		r.reopen(false)
		if i > 0 {
			began = ended.Add(time.Second)
		}
		r.post(ended.Add(time.Second), 0, firing("a", began))
		r.decide()
		r.want(r.line())
	}
	r.post(now.Add(time.Minute), 0, firing("a", began))
	r.decide()
	flap := "collapsed flap"
	r.want(r.became(), "delivered", flap, flap, flap, flap, flap, flap, "suppressed repeat")
	ids := map[string]bool{}
	for _, rec := range r.records() {
		if ids[rec.ID] {
			t.Errorf("two events have the id %s", rec.ID)
		}
		ids[rec.ID] = true
	}
	r.post(now.Add(2*time.Minute), 0, resolved("a", began, now.Add(2*time.Minute)))
	r.decide()
	r.want(r.line(), "resolved pmm-a")
	if err := r.ledger.View(func(tx *store.Tx) {
		if w := waiting(tx)[0]; !w.NotBefore.Equal(now.Add(7*time.Minute)) || !w.ClaimedAt.IsZero() {
			t.Errorf("held until %s, claimed at %s", w.NotBefore, w.ClaimedAt)
		}
	}); err != nil {
		t.Error(err)
	}
}

// What is queued behind a held recovery goes out after it, and closes the incident too:
// an alert that fires again has to open one.
func TestARecoveryBehindAHeldOneClosesNothingThatFires(t *testing.T) {
	for name, tt := range map[string]struct {
		form   Form
		behind func(r *stage, now time.Time)
		want   []string
	}{
		"an older one, sent again": {Form{}, func(r *stage, _ time.Time) {
			first := r.records()[1]
			r.store(requeueOf([]Ref{{first.ReceivedAt, first.Pos}}, false))
		}, []string{"resolved pmm-a", "resolved pmm-a", "firing pmm-a"}},
		"one of another alert with the same incident": {Form{ByAlertname: true}, func(r *stage, now time.Time) {
			r.post(now, 0, firing("b", now))
			r.post(now, 0, resolved("b", now, now))
		}, []string{"resolved pmm-a", "firing pmm-b", "resolved pmm-b", "firing pmm-a"}},
		"one of an alert with an incident of its own": {Form{}, func(r *stage, now time.Time) {
			r.post(now, 0, firing("b", now))
			r.post(now, 0, resolved("b", now, now))
		}, []string{"firing pmm-b", "resolved pmm-b"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, now := opened(t, SplitConfig{Form: tt.form, Hold: Hold{Recovery: 5 * time.Minute}})
			r.post(now.Add(-30*time.Minute), 0, resolved("a", now.Add(-time.Hour), now.Add(-30*time.Minute)))
			r.post(now.Add(-20*time.Minute), 0, firing("a", now.Add(-20*time.Minute)))
			r.decide()
			r.settle(event.Delivered)
			r.post(now, 0, resolved("a", now.Add(-20*time.Minute), now))
			r.decide()
			tt.behind(r, now)
			r.post(now.Add(time.Second), 0, firing("a", now.Add(time.Second)))
			r.decide()
			r.want(r.line(), tt.want...)
		})
	}
}

// Collapsed together with a firing that Callgoose never took, the alert would have none.
func TestAnAlertWithoutAnIncidentIsNotCollapsed(t *testing.T) {
	for _, outcome := range []event.Outcome{event.Discarded, event.Dead, event.Unknown} {
		now := time.Now().UTC().Truncate(time.Second)
		r := newStage(t, SplitConfig{Hold: Hold{Recovery: 5 * time.Minute}})
		r.post(now.Add(-time.Hour), 0, firing("a", now.Add(-time.Hour)))
		r.decide()
		r.settle(outcome)
		r.post(now, 0, resolved("a", now.Add(-time.Hour), now))
		r.post(now.Add(time.Second), 0, firing("a", now))
		r.decide()
		r.want(r.line(), "resolved pmm-a", "firing pmm-a")
	}
}

func TestAfterItsTimeAHeldRecoveryIsNoFlap(t *testing.T) {
	r, now := opened(t, SplitConfig{Hold: Hold{Recovery: 5 * time.Minute}})
	r.post(now, 0, resolved("a", now.Add(-time.Hour), now))
	r.post(now.Add(5*time.Minute), 0, firing("a", now.Add(5*time.Minute)))
	r.decide()
	r.want(r.line(), "resolved pmm-a", "firing pmm-a")
}

func TestATrueRecoveryEndsTheWaitOfAHollowOne(t *testing.T) {
	at := time.Hour
	for _, tt := range []struct {
		name string
		say  func(r *stage, now time.Time)
		want []string
	}{
		{
			"a hollow one again", func(r *stage, now time.Time) { r.post(now, 0, lost("a", true, now.Add(-at), now)) },
			[]string{"delivered", "queued hollow", "suppressed already_resolved"},
		},
		{
			"a confirmed one", func(r *stage, now time.Time) { r.post(now, 0, resolved("a", now.Add(-at), now)) },
			[]string{"delivered", "collapsed superseded", "queued"},
		},
		{
			"a confirmed one of an older episode", func(r *stage, now time.Time) {
				r.post(now, 0, resolved("a", now.Add(-5*at), now.Add(-4*at)))
			},
			[]string{"delivered", "queued hollow", "suppressed already_resolved"},
		},
		{
			"a person", func(r *stage, now time.Time) {
				r.closes("pmm-a", now)
			},
			[]string{"delivered", "collapsed superseded", "queued"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, now := opened(t, SplitConfig{Hold: Hold{Hollow: 2 * time.Hour}})
			r.post(now, 0, lost("a", true, now.Add(-at), now))
			r.decide()
			tt.say(r, now.Add(time.Minute))
			r.decide()
			r.want(r.became(), tt.want...)
			if list := r.records(); list[1].ID == list[2].ID {
				t.Error("both recoveries have one id")
			}
		})
	}
}

// A ledger that is lost knows from the stream what was held.
func TestWhatIsHeldIsHeldAfterTheLedgerIsLost(t *testing.T) {
	r, now := opened(t, SplitConfig{Hold: Hold{Recovery: 5 * time.Minute}})
	r.post(now, 0, resolved("a", now.Add(-time.Hour), now))
	r.decide()
	r.reopen(true)
	r.decide()
	r.post(now.Add(time.Minute), 0, firing("a", now.Add(time.Minute)))
	r.decide()
	r.want(r.became(), "queued", "collapsed flap", "collapsed flap")
}

func TestReconciledWordsGiveWayToWebhooks(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	began := now.Add(-time.Hour)
	// say is what the service concluded from lists that it began to read at that time.
	say := func(r *stage, read time.Time, m member) {
		r.store(event.Notification{Source: "pmm", Origin: event.Reconciled, BeganAt: read, ReceivedAt: read.Add(20 * time.Second), Alerts: 1, Body: body(r.t, m)})
	}
	ended := resolved("a", began, now)
	for _, tt := range []struct {
		name string
		say  func(r *stage)
		want []string
	}{
		{"a close", func(r *stage) { say(r, now, ended) }, []string{"delivered", "queued"}},
		{"a close of another episode", func(r *stage) { say(r, now, resolved("a", began.Add(-time.Hour), now)) }, []string{"delivered", "suppressed stale"}},
		{"a close, while a webhook named the alert", func(r *stage) {
			r.post(now.Add(10*time.Second), 0, firing("a", began))
			say(r, now, ended)
		}, []string{"delivered", "suppressed repeat", "suppressed late"}},
		{"a close, then a webhook that was under way", func(r *stage) {
			say(r, now, ended)
			r.post(now.Add(time.Minute), time.Hour, firing("a", began))
		}, []string{"delivered", "queued", "queued"}},
		{"a close that is revoked", func(r *stage) {
			say(r, now, ended)
			say(r, now.Add(time.Minute), firing("a", began))
		}, []string{"delivered", "queued", "queued"}},
		{"an opening of what a webhook closed meanwhile", func(r *stage) {
			r.post(now.Add(10*time.Second), 0, ended)
			say(r, now, firing("a", began))
		}, []string{"delivered", "queued", "suppressed late"}},
		{"a close, when the clock was a day ahead before", func(r *stage) {
			r.post(now.Add(24*time.Hour), 0, firing("a", began))
			say(r, now, ended)
		}, []string{"delivered", "suppressed repeat", "queued"}},
		{"an opening, when the clock was a day ahead before", func(r *stage) {
			r.post(now.Add(24*time.Hour), 0, ended)
			say(r, now, firing("a", began))
		}, []string{"delivered", "queued", "queued"}},
		{"a close, while a webhook named the alert after the clock was set back", func(r *stage) {
			r.post(now.Add(24*time.Hour), 0, firing("a", began))
			r.post(now.Add(10*time.Second), 0, firing("a", began))
			say(r, now, ended)
		}, []string{"delivered", "suppressed repeat", "suppressed repeat", "suppressed late"}},
		{"an opening of what a webhook opened meanwhile", func(r *stage) {
			r.post(now.Add(-time.Minute), 0, ended)
			r.post(now.Add(10*time.Second), 0, firing("a", now))
			say(r, now, firing("a", now.Add(-5*time.Minute)))
		}, []string{"delivered", "queued", "queued", "suppressed late"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newStage(t, SplitConfig{NamedEvery: 1})
			r.post(began, 0, firing("a", began))
			r.decide()
			r.settle(event.Delivered)
			tt.say(r)
			r.decide()
			r.want(r.became(), tt.want...)
			for _, rec := range r.records()[1:] {
				if rec.Outcome == event.Queued && rec.Status == event.Firing && rec.StartsAt.Equal(began) && !rec.Facts.Reopened {
					t.Error("the episode that goes on does not say so")
				}
			}
		})
	}
}

// What is held waits, also after a crash and while Callgoose is away, and keeps nothing
// of another key waiting, nor what is queued behind it.
func TestAHeldEventGoesOutInItsTime(t *testing.T) {
	for name, then := range map[string]func(r *rig){
		"nothing happens": func(*rig) {},
		"it crashes":      func(r *rig) { r.crash() },
		"it restarts":     func(r *rig) { r.restart() },
		"Callgoose is away": func(r *rig) {
			r.far.answers(step("connect"))
			r.put(alert{key: "c"})
			time.Sleep(10 * time.Minute)
			r.far.set(r.far.passes)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, DeliverConfig{}, func(r *rig) {
				began := time.Now()
				at := r.put(alert{key: "a", resolved: true, held: time.Hour}, alert{key: "b"})[0]
				time.Sleep(time.Minute)
				then(r)
				time.Sleep(time.Until(began.Add(59 * time.Minute)))
				r.want(at, event.Queued, "")
				time.Sleep(2 * time.Minute)
				r.want(at, event.Delivered, "")
				if got := r.far.requests(); got[0].key != "b" || got[0].when.Sub(began) > time.Second {
					t.Errorf("the first of them was %+v", got[0])
				}
			})
		})
	}
}

// A clock that was ahead, and was set back, holds nothing longer.
func TestAHeldEventWaitsNoLongerThanItWasToBeHeld(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		at := r.put(alert{key: "a", resolved: true, held: time.Hour, ahead: 24 * time.Hour})[0]
		time.Sleep(59 * time.Minute)
		r.want(at, event.Queued, "")
		time.Sleep(2 * time.Minute)
		r.want(at, event.Delivered, "")
	})
}

func TestWhatIsQueuedBehindAHeldEventSendsIt(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.put(alert{key: "a", resolved: true, held: time.Hour})
		gone := r.put(alert{key: "b", resolved: true, held: time.Hour})[0]
		time.Sleep(time.Minute)
		if err := r.ledger.Do(r.t.Context(), func(tx *store.Tx) { tx.DropWaiting(gone) }); err != nil {
			t.Fatal(err)
		}
		r.put(alert{key: "a"}, alert{key: "b"}, alert{key: "c", resolved: true, held: time.Hour}, alert{key: "c", held: time.Hour})
		time.Sleep(time.Second)
		var got []string
		for _, q := range r.far.requests() {
			got = append(got, q.status+" "+q.key)
		}
		slices.Sort(got)
		if want := []string{"firing a", "firing b", "resolved a", "resolved c"}; !slices.Equal(got, want) {
			t.Errorf("sent were %q, want %q", got, want)
		}
	})
}
