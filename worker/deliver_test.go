package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// Every row of the table of answers: what one event that is alone comes to.
func TestOutcomeByAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   *callgoose.Error
		want  event.Outcome
		state string
	}{
		{"400", status(400), event.Dead, event.Up},
		{"413", status(413), event.Dead, event.Up},
		{"415", status(415), event.Dead, event.Up},
		{"422", status(422), event.Dead, event.Up},
		{"401", status(401), event.Queued, event.Held},
		{"403", status(403), event.Queued, event.Held},
		{"404", status(404), event.Queued, event.Held},
		{"405", status(405), event.Queued, event.Held},
		{"407", status(407), event.Queued, event.Held},
		{"301", status(301), event.Queued, event.Held},
		{"a page with 200", page(), event.Queued, event.Held},
		{"a page with 400", &callgoose.Error{Status: 400, Sent: true, Foreign: true}, event.Queued, event.Held},
		{"408", status(408), event.Queued, event.Down},
		{"409", status(409), event.Queued, event.Down},
		{"425", status(425), event.Queued, event.Down},
		{"429", status(429), event.Queued, event.Down},
		{"500", status(500), event.Queued, event.Down},
		{"a timeout", step("timeout"), event.Queued, event.Down},
		{"a broken connection", step("reset"), event.Queued, event.Down},
		{"no connection", unreached(), event.Queued, event.Down},
		{"no name", step("dns"), event.Queued, event.Down},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, DeliverConfig{}, func(r *rig) {
				r.far.answers(c.err)
				at := r.put(alert{key: "a"})[0]
				time.Sleep(time.Minute)
				r.want(at, c.want, "")
				r.state(c.state)
				r.far.set(r.far.passes)
				r.settle()
				want := c.want
				if want == event.Queued {
					want = event.Delivered
				}
				r.want(at, want, "")
			})
		})
	}
}

// One event that is refused for itself, in every way there is, keeps no other waiting
// for longer than a moment, and is no reason for an alarm as long as others pass.
func TestRefusedForItself(t *testing.T) {
	for _, c := range []struct {
		name string
		err  *callgoose.Error
		dead string // why it ends, "" = it goes on being tried
	}{
		{"400", status(400), ""},
		{"403", status(403), "refused for itself: 403"},
		{"404", status(404), "refused for itself: 404"},
		{"409", status(409), "refused for itself: 409"},
		{"a page", page(), "refused for itself: 200"},
		{"403 that asks for an hour", &callgoose.Error{Status: 403, Sent: true, RetryAfter: time.Hour}, "refused for itself: 403"},
		{"409 that asks for an hour", &callgoose.Error{Status: 409, Sent: true, RetryAfter: time.Hour}, "refused for itself: 409"},
		{"500", status(500), ""},
		{"timeout", step("timeout"), ""},
		{"reset", step("reset"), ""},
	} {
		for _, others := range []string{"wait behind it", "come later"} {
			t.Run(c.name+", others "+others, func(t *testing.T) {
				bubble(t, DeliverConfig{}, func(r *rig) {
					r.far.set(only("bad", c.err))
					bad := r.put(alert{key: "bad"})[0]
					if others == "come later" {
						time.Sleep(10 * time.Minute) // held or down by now
					}
					for i := range 100 {
						began := time.Now()
						at := r.put(alert{key: fmt.Sprint("good", i)})[0]
						for r.record(at).Outcome != event.Delivered {
							if time.Since(began) > 5*time.Second {
								t.Fatalf("another event waits: %+v", r.d.View().Circuit)
							}
							time.Sleep(10 * time.Millisecond)
						}
						time.Sleep(time.Minute)
					}
					switch tries := r.far.of("bad"); {
					case c.name == "400":
						r.want(bad, event.Dead, "")
					case c.dead != "":
						r.want(bad, event.Dead, c.dead)
						if len(tries) < refusedOften {
							t.Errorf("given up after %d refusals", len(tries))
						}
					default:
						r.want(bad, event.Queued, "")
						if len(tries) > 350 || len(tries) < 50 {
							t.Errorf("it was tried %d times in 110 minutes", len(tries))
						}
					}
				})
			})
		}
	}
}

// The oldest event that waits is found behind what a storm holds, and those are not looked
// at again each time.
func TestTheOldestIsFoundBehindAStorm(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.answers(unreached())
		held := make([]alert, 300)
		for i := range held {
			held[i] = alert{key: fmt.Sprint("held", i), storm: true}
		}
		places := r.put(held...)
		if at := r.d.View().Oldest; !at.IsZero() {
			t.Errorf("what a storm holds is the oldest: %s", at)
		}
		time.Sleep(time.Minute)
		want := time.Now()
		r.put(alert{key: "sent"})
		for range 2 {
			if at := r.d.View().Oldest; !at.Equal(want) {
				t.Errorf("the oldest waits since %s, want %s", at, want)
			}
		}
		if from := *r.d.storm.Load(); from != places[len(places)-1] {
			t.Errorf("the search begins behind %v, want %v", from, places[len(places)-1])
		}
		r.far.set(r.far.passes)
		for r.count(event.Delivered) == 0 {
			time.Sleep(time.Second)
		}
		if at := r.d.View().Oldest; !at.IsZero() {
			t.Errorf("nothing waits, and the oldest does since %s", at)
		}
	})
}

// A Callgoose that hangs on large bodies takes no more than half of the rate from the
// small ones, whatever waits; few large bodies are held, and each is made once for each
// attempt, one at a time. What waits for room uses no token of --rate.
func TestLargeBodiesThatHangLeaveTheRestItsWay(t *testing.T) {
	for _, c := range []struct {
		name       string
		rate       float64
		large      int // bytes
		small, all int // small events, and the most large ones that may be under way
	}{
		{"places", 0, largeBody + 1, 2000, 8},
		{"bytes", 0, largeRoom / 2, 2000, 2},
		{"the largest", 0, 2 * largeRoom, 2000, 1},
		{"rate", 20, largeBody + 1, 1000, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			took := map[int]time.Duration{}
			for _, larges := range []int{0, 100} {
				bubble(t, DeliverConfig{Rate: c.rate}, func(r *rig) {
					var now, most atomic.Int64
					r.far.set(func(_ context.Context, q request) *callgoose.Error {
						if !strings.HasPrefix(q.key, "large") {
							time.Sleep(100 * time.Millisecond)
							return nil
						}
						most.Store(max(most.Load(), now.Add(1)))
						defer now.Add(-1)
						time.Sleep(15 * time.Second)
						return step("timeout")
					})
					heavy := many("large", larges)
					for i := range heavy {
						heavy[i].size = c.large
					}
					r.put(append(heavy, many("small", c.small)...)...)
					began := time.Now()
					for r.count(event.Delivered) < c.small && time.Since(began) < time.Hour {
						time.Sleep(10 * time.Millisecond)
					}
					took[larges] = time.Since(began)
					if n := int(most.Load()); n > c.all || larges > 0 && n == 0 {
						t.Errorf("%d large bodies were under way at once, want at most %d", n, c.all)
					}
					if n := len(r.far.requests()); r.bodies.made != n || r.bodies.most != 1 {
						t.Errorf("%d bodies were made for %d requests, %d at once", r.bodies.made, n, r.bodies.most)
					}
				})
			}
			if took[100] > 2*took[0]+time.Second {
				t.Errorf("%d small events took %s beside large ones, %s alone", c.small, took[100], took[0])
			}
		})
	}
}

// Several events that are refused for themselves are no outage either.
func TestSeveralRefusedForThemselves(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.set(func(_ context.Context, q request) *callgoose.Error {
			if strings.HasPrefix(q.key, "bad") {
				return status(403)
			}
			return nil
		})
		bad := r.put(many("bad", 5)...)
		time.Sleep(time.Hour) // alone, they hold everything
		r.state(event.Held)
		for i := range 60 {
			at := r.put(alert{key: fmt.Sprint("good", i)})[0]
			time.Sleep(61 * time.Second)
			r.want(at, event.Delivered, "")
			if i == 0 {
				continue // nobody had passed before: the first may have had to wait for a probe
			}
			rec := r.record(at)
			if wait := rec.SettledAt.Sub(rec.ReceivedAt); wait > time.Second {
				t.Errorf("good event %d waited %s", i, wait)
			}
		}
		for _, at := range bad {
			r.want(at, event.Dead, "refused for itself: 403")
		}
	})
}

// A real refusal of everything costs no event its place, whatever was suspect before.
func TestAWrongTokenGivesUpNothing(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.set(only("bad", status(403)))
		r.put(alert{key: "bad"})
		for i := range 4 {
			r.put(alert{key: fmt.Sprint("good", i)})
			time.Sleep(time.Second)
		}
		r.far.answers(status(401))
		r.put(many("more", 50)...)
		time.Sleep(72 * time.Hour)
		r.state(event.Held)
		if n := r.count(event.Dead); n != 0 {
			t.Errorf("%d dead letters", n)
		}
		r.far.set(r.far.passes)
		if took := r.settle(); took > 2*time.Minute {
			t.Errorf("it took %s to notice", took)
		}
	})
}

// An event is given up for itself only by a refusal in a time when others are accepted,
// and its reason holds the text of the answer.
func TestTheLastRefusalDecidesOnlyWhileCallgooseIsUp(t *testing.T) {
	for _, held := range []bool{false, true} {
		now := time.Now()
		c := newCircuit(now, time.Second, time.Minute)
		bad, good := &lane{key: "bad", items: []*item{{}}}, &lane{key: "good", items: []*item{{}}}
		refuse := func(l *lane) ruling {
			return c.observe(now, l, l.head(), l.key, false, classify(callgoose.Reply{}, status(403)), 403, "blocked by the firewall")
		}
		for range refusedOften - 1 {
			if got := refuse(bad); got.outcome != "" {
				t.Fatalf("given up early: %+v", got)
			}
			c.observe(now, good, good.head(), "good", false, verdict{class: accepted}, 200, "")
		}
		if held {
			refuse(good)
		}
		got := refuse(bad)
		if dead := got.outcome == event.Dead; dead == held || dead && got.reason != "refused for itself: 403: blocked by the firewall" {
			t.Errorf("held %v: %+v", held, got)
		}
	}
}

// Events rejected one after the other are not the events' fault.
func TestFiveRejectedInARowHoldEverything(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.answers(status(400))
		r.put(many("a", 100)...)
		time.Sleep(time.Hour)
		r.state(event.Held)
		if n := r.count(event.Dead); n != rejectedAll-1 {
			t.Errorf("%d dead letters, want %d", n, rejectedAll-1)
		}
		r.far.set(r.far.passes)
		r.settle()
		if n := r.count(event.Delivered); n != 100-rejectedAll+1 {
			t.Errorf("%d delivered", n)
		}
	})
}

func TestRejectedEventsBetweenOthersAreTheirOwnFault(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.set(func(_ context.Context, q request) *callgoose.Error {
			if strings.HasPrefix(q.key, "bad") {
				return status(422)
			}
			return nil
		})
		for i := range 20 {
			r.put(alert{key: fmt.Sprint("bad", i)}, alert{key: fmt.Sprint("good", i)})
			r.settle()
		}
		if d, n := r.count(event.Dead), r.count(event.Delivered); d != 20 || n != 20 {
			t.Errorf("%d dead, %d delivered", d, n)
		}
	})
}

// The events of one key rejected one after the other say nothing about the others.
func TestRejectedEventsOfOneKeyHoldNothing(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.answers(status(400))
		for range 10 {
			r.put(alert{key: "a"})
			time.Sleep(time.Second)
		}
		r.state(event.Up)
		if n := r.count(event.Dead); n != 10 {
			t.Errorf("%d dead", n)
		}
	})
}

// Whatever number of events waits behind one that is refused, the others go out, and
// the lane itself in order when it is accepted.
func TestNoNumberOfEventsHidesTheOthers(t *testing.T) {
	for _, n := range []int{1500, 3000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			bubble(t, DeliverConfig{ByAlertname: true}, func(r *rig) {
				r.put(alert{key: "first"})
				r.settle()
				r.far.set(only("storm0", status(500)))
				storm := many("storm", n)
				for i := range storm {
					storm[i].name = "storm"
				}
				r.put(storm...)
				time.Sleep(time.Minute)
				at := r.put(alert{key: "other"})[0]
				time.Sleep(5 * time.Second)
				r.want(at, event.Delivered, "")
				if w := r.d.View().Window; w > 2*laneItems {
					t.Errorf("%d events in memory", w)
				}
				r.far.set(r.far.passes)
				r.settle()
				for i, q := range slices.DeleteFunc(r.far.requests(), func(q request) bool { return !q.passed || q.key == "first" || q.key == "other" }) {
					if q.key != fmt.Sprint("storm", i) {
						t.Fatalf("request %d is of %s", i, q.key)
					}
				}
			})
		})
	}
}

// Many long lanes, mixed, are read past and read again: nothing is lost, doubled or
// overtaken. Random failures between, seeded.
func TestLongLanesUnderRandomFailures(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, DeliverConfig{}, func(r *rig) {
				dice := rand.New(rand.NewPCG(seed, 1))
				there := rand.New(rand.NewPCG(seed, 2))
				r.far.set(func(context.Context, request) *callgoose.Error {
					r.far.mu.Lock()
					wait, fate := there.IntN(50), there.IntN(10)
					r.far.mu.Unlock()
					time.Sleep(time.Duration(wait) * time.Millisecond)
					switch fate {
					case 0:
						return status(503)
					case 1:
						return step("reset")
					}
					return nil
				})
				n := 0
				for range 10 {
					var some []alert
					for range 150 {
						key := fmt.Sprint("k", dice.IntN(8)*dice.IntN(4))
						some = append(some, alert{key: key, resolved: dice.IntN(2) == 0})
						n++
					}
					r.put(some...)
					time.Sleep(time.Duration(dice.IntN(30)) * time.Second)
				}
				r.far.set(r.far.passes)
				r.settle()
				if got := r.count(event.Delivered); got != n {
					t.Errorf("%d delivered of %d", got, n)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if w := r.d.w; len(w.lanes) != 0 || len(w.behind) != 0 || w.size != 0 {
					t.Errorf("%d lanes stay in memory, %d of them behind", len(w.lanes), len(w.behind))
				}
			})
		})
	}
}

func TestAnOutageCostsOneProbeAtATime(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.put(alert{key: "first"})
		r.settle()
		r.far.answers(unreached())
		places := r.put(many("a", 500)...)
		time.Sleep(20 * time.Second)
		tries := r.far.requests()[1:]
		if len(tries) > 30 || len(tries) < 5 {
			t.Errorf("%d connections were tried in 20 s", len(tries))
		}
		for _, q := range tries[min(16, len(tries)):] {
			if q.key != "a0" || !q.renewed {
				t.Errorf("a probe of %s, new connection %v: want the oldest on a new one", q.key, q.renewed)
			}
		}
		r.state(event.Down)
		r.far.set(r.far.passes)
		if took := r.settle(); took > 4*time.Second {
			t.Errorf("it took %s", took)
		}
		for _, at := range places {
			r.want(at, event.Delivered, "")
		}
	})
}

// An outage with answers begins under load: those behind do not find out one by one.
func TestAnOutageThatAnswersCostsFewRequests(t *testing.T) {
	for _, s := range []int{503, 429, 401, 403} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			bubble(t, DeliverConfig{}, func(r *rig) {
				r.put(alert{key: "first"})
				r.settle()
				r.far.set(func(context.Context, request) *callgoose.Error { time.Sleep(50 * time.Millisecond); return status(s) })
				r.put(many("a", 1000)...)
				time.Sleep(20 * time.Second)
				tries := r.far.requests()[1:]
				if len(tries) > 30 || len(tries) < 16 {
					t.Errorf("%d requests in 20 s of outage", len(tries))
				}
				seen := map[string]bool{}
				for i, q := range tries {
					if i > 20 && !q.renewed { // the first ones were under way when it began
						t.Errorf("request %d used a connection from before", i)
					}
					if seen[q.key] {
						t.Errorf("%s was probed twice before others had their turn", q.key)
					}
					seen[q.key] = true
				}
				r.far.set(r.far.passes)
				r.settle()
			})
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		told := false
		r.far.set(func(context.Context, request) *callgoose.Error {
			if told {
				return nil
			}
			told = true
			return &callgoose.Error{Status: 429, Sent: true, RetryAfter: 10 * time.Minute}
		})
		r.put(many("a", 3)...)
		r.settle()
		got := r.far.requests()
		if wait := got[1].when.Sub(got[0].when); wait < 10*time.Minute || wait > 11*time.Minute {
			t.Errorf("tried again after %s", wait)
		}
	})
}

// A start remembers nothing that decides: stopped in an outage, for longer than events
// are tried for, the first thing is an attempt.
func TestAStartTriesBeforeItGivesUp(t *testing.T) {
	bubble(t, DeliverConfig{RetryFor: time.Hour}, func(r *rig) {
		r.far.answers(unreached())
		r.put(many("a", 3)...)
		time.Sleep(time.Minute)
		r.halt()
		time.Sleep(72 * time.Hour)
		r.far.set(r.far.passes)
		r.start()
		time.Sleep(time.Second)
		r.state(event.Up)
		if n := r.count(event.Delivered); n != 3 {
			t.Errorf("%d delivered, %d dead", n, r.count(event.Dead))
		}
	})
}

// The clock of a machine that was just booted may be ahead, and nothing can be reached yet:
// that gives up nothing.
func TestAStartGivesUpNothingBeforeTheClockIsSet(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.answers(step("tls"))
		at := r.put(alert{key: "a", queuedAt: time.Now().Add(-10000 * time.Hour)})[0]
		time.Sleep(notSetYet - time.Second)
		r.want(at, event.Queued, "")
		time.Sleep(3 * time.Minute)
		r.want(at, event.Dead, "--retry-for")
	})
}

// What is older than --retry-for is given up in an outage, but a recovery only when its
// alert fires again: a late close is right, a missing one never.
func TestRetryForGivesUpFiringEvents(t *testing.T) {
	bubble(t, DeliverConfig{RetryFor: time.Hour}, func(r *rig) {
		r.far.answers(unreached())
		fired := r.put(many("a", 600)...)
		over := r.put(alert{key: "over", resolved: true})[0]
		again := r.put(alert{key: "again", resolved: true})[0]
		refired := r.put(alert{key: "again"})[0]
		time.Sleep(50 * time.Minute)
		young := r.put(alert{key: "young"})[0]
		time.Sleep(15 * time.Minute)
		for _, at := range append(fired, again, refired) {
			r.want(at, event.Dead, "not delivered within 1h0m0s (--retry-for)")
		}
		r.want(over, event.Queued, "")
		r.want(young, event.Queued, "")
		r.far.set(r.far.passes)
		r.settle()
		r.want(over, event.Delivered, "")
		r.want(young, event.Delivered, "")
	})
}

// Days of outage, a probe under way in the very moment of --retry-for.
func TestAProbeThatHangsInTheMomentOfRetryFor(t *testing.T) {
	bubble(t, DeliverConfig{RetryFor: time.Hour}, func(r *rig) {
		r.far.answers(step("timeout"))
		r.put(many("a", 3)...)
		time.Sleep(time.Hour - 5*time.Second)
		r.far.set(func(context.Context, request) *callgoose.Error { time.Sleep(15 * time.Second); return step("timeout") })
		time.Sleep(10 * time.Minute)
		if n := r.count(event.Dead); n != 3 {
			t.Errorf("%d dead", n)
		}
	})
}

// Refused for itself with an answer that may change: until --retry-for.
func TestItsOwnTroubleEndsAtRetryFor(t *testing.T) {
	bubble(t, DeliverConfig{RetryFor: 30 * time.Minute, RetryMin: 20 * time.Second, RetryMax: 20 * time.Second}, func(r *rig) {
		r.far.set(only("bad", status(500)))
		bad := r.put(alert{key: "bad"})[0]
		for i := range 400 { // it never fails twice with none accepted between
			r.put(alert{key: fmt.Sprint("good", i)})
			time.Sleep(5 * time.Second)
		}
		r.want(bad, event.Dead, "--retry-for")
		r.state(event.Up)
	})
}

// A wall clock that is set must not give up what is young.
func TestAgeDoesNotFollowAClockThatJumps(t *testing.T) {
	began := time.Now()
	for _, c := range []struct {
		name   string
		queued time.Duration // of the wall clock, since we began
		ahead  time.Duration // how far the wall clock was set forward since
		want   time.Duration // age, an hour after we began
	}{
		{"queued before we began", -time.Hour, 0, 2 * time.Hour},
		{"queued since", 10 * time.Minute, 0, 50 * time.Minute},
		{"queued when the clock was ahead", 48 * time.Hour, 0, -47 * time.Hour},
		{"queued before the clock was set forward", 10*time.Minute - 48*time.Hour, 48 * time.Hour, 50 * time.Minute},
		{"queued in an earlier life", -1000 * time.Hour, 0, 1001 * time.Hour},
		{"queued after the clock was set back", 10*time.Minute + 48*time.Hour, -48 * time.Hour, 50*time.Minute - 48*time.Hour},
	} {
		now := began.Add(time.Hour)
		d := &Deliverer{clocks: clocks{began, began.Add(-c.ahead).Round(0)}}
		if got := now.Sub(d.since(began.Add(c.queued).Round(0), now)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// While connections are refused nothing was received: the words about the delay are
// those of the delivery. Once something may have been received they stay.
func TestTheBytesAreFixedByTheFirstRequestThatMayHaveBeenReceived(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.answers(unreached())
		at := r.put(alert{key: "a"})[0]
		time.Sleep(time.Hour)
		r.far.answers(step("timeout"))
		time.Sleep(5 * time.Minute)
		r.restart()
		time.Sleep(time.Hour)
		r.far.set(r.far.passes)
		r.settle()
		var sent []string
		for _, q := range r.far.requests() {
			if q.when.Sub(r.record(at).ReceivedAt) > time.Hour+2*time.Minute {
				sent = append(sent, q.body)
			}
		}
		if len(sent) < 10 || strings.Contains(sent[0], "late 0s") {
			t.Errorf("%d requests, the first %q", len(sent), sent[0])
		}
		if d := slices.Compact(sent); len(d) != 1 {
			t.Errorf("different bytes: %q", d)
		}
	})
}

// Killed after the request, before the record: the same bytes go out again.
func TestAfterACrashTheSameBytesGoOut(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.set(func(ctx context.Context, _ request) *callgoose.Error { <-ctx.Done(); return step("interrupted") })
		at := r.put(alert{key: "a", queuedAt: time.Now().Add(-time.Hour)})[0]
		time.Sleep(time.Second)
		r.crash()
		time.Sleep(time.Hour)
		r.far.set(r.far.passes)
		r.restart()
		r.settle()
		got := r.far.requests()
		if len(got) < 3 || got[0].body != got[len(got)-1].body {
			t.Errorf("%+v", got)
		}
		r.want(at, event.Delivered, "")
		if rec := r.record(at); rec.ClaimedAt.Sub(rec.ReceivedAt) > time.Second || rec.Tries != 1 {
			t.Errorf("%+v: an interrupted attempt costs nothing, the claim stands", rec)
		}
	})
}

// Born claimed: it is sent as it is. When it could not be sent at once, it says how late it is.
func TestAnEventBornClaimed(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.put(alert{key: "first"})
		r.settle()
		if !r.d.MayClaim() {
			t.Fatal("up, and nothing may be claimed")
		}
		commits := r.ledger.Changes()
		at := r.put(alert{key: "a", claimed: time.Now()})[0]
		r.settle()
		if n := r.ledger.Changes() - commits; n != 2 {
			t.Errorf("%d commits, want one that queues and one that settles", n)
		}
		if rec := r.record(at); rec.ClaimedAt.IsZero() {
			t.Error("the record has no claim")
		}
		r.far.answers(unreached())
		r.put(alert{key: "b", claimed: time.Now()})
		time.Sleep(time.Hour)
		if r.d.MayClaim() {
			t.Error("down, and events may be claimed")
		}
		r.far.set(r.far.passes)
		r.settle()
		if got := r.far.of("b"); strings.Contains(got[len(got)-1].body, "late 0s") {
			t.Errorf("an hour late: %q", got[len(got)-1].body)
		}
	})
}

// Sent before, put in the queue again: the bytes are those of the first time, however long it waits.
func TestAReplayHasTheBytesOfTheFirstTime(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.answers(unreached())
		before := time.Now().Add(-time.Hour)
		r.put(alert{key: "a", queuedAt: before, claimed: before.Add(time.Minute), recorded: before.Add(time.Minute)})
		time.Sleep(time.Hour)
		r.far.set(r.far.passes)
		r.settle()
		for _, q := range r.far.requests() {
			if !strings.Contains(q.body, "late 1m0s") {
				t.Errorf("%q", q.body)
			}
		}
	})
}

// After an outage the oldest go first, at the rate that is allowed.
func TestAfterAnOutageTheOldestGoFirst(t *testing.T) {
	for _, concurrency := range []int{1, 16} {
		t.Run(fmt.Sprint(concurrency), func(t *testing.T) {
			bubble(t, DeliverConfig{Rate: 10, Concurrency: concurrency}, func(r *rig) {
				r.far.answers(unreached())
				r.put(many("a", 200)...)
				time.Sleep(time.Minute)
				r.far.set(func(context.Context, request) *callgoose.Error { time.Sleep(30 * time.Millisecond); return nil })
				if took := r.settle(); took < 19*time.Second || took > 30*time.Second {
					t.Errorf("it took %s", took)
				}
				i := 0
				for _, q := range r.far.requests() {
					if q.passed && q.key != fmt.Sprint("a", i) {
						t.Fatalf("request %d is of %s", i, q.key)
					} else if q.passed {
						i++
					}
				}
				if r.far.most > concurrency {
					t.Errorf("%d requests at once", r.far.most)
				}
			})
		})
	}
}

// Delivery that is paused by hand sends nothing, not even a probe, and goes on by itself.
func TestPause(t *testing.T) {
	for _, broken := range []bool{false, true} {
		bubble(t, DeliverConfig{RetryFor: time.Hour}, func(r *rig) {
			if broken {
				r.far.answers(unreached())
			}
			r.put(alert{key: "first"})
			time.Sleep(time.Minute)
			hold := func(p *store.Pause) {
				if err := r.ledger.Do(context.Background(), func(tx *store.Tx) { tx.SetPause(p) }); err != nil {
					t.Fatal(err)
				}
				r.d.Kick()
				synctest.Wait()
			}
			since := time.Now()
			hold(&store.Pause{Since: since, Until: since.Add(24 * time.Hour), Reason: "maintenance of callgoose"})
			before := len(r.far.requests())
			places := r.put(many("a", 10)...)
			time.Sleep(12 * time.Hour)
			r.state(event.Paused)
			r.restart()
			time.Sleep(12*time.Hour - time.Second)
			r.state(event.Paused)
			v := r.d.View()
			if v.Pause == nil || v.Pause.Reason != "maintenance of callgoose" || !v.Circuit.Since.Equal(since) || r.d.MayClaim() {
				t.Errorf("%+v", v)
			}
			if n := len(r.far.requests()); n != before {
				t.Errorf("%d requests while paused", n-before)
			}
			r.far.set(r.far.passes)
			time.Sleep(2 * time.Second)
			for _, at := range places {
				r.want(at, event.Delivered, "")
			}
			hold(&store.Pause{Since: time.Now(), Reason: "for ever"})
			at := r.put(alert{key: "b"})[0]
			time.Sleep(100 * time.Hour)
			r.want(at, event.Queued, "")
			hold(nil)
			time.Sleep(time.Second)
			r.want(at, event.Delivered, "")
		})
	}
}

// A clock that was ahead when delivery was paused, and was set back, pauses it no longer.
func TestAPauseLastsNoLongerThanItWasToLast(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		since := time.Now().Add(24 * time.Hour)
		pause := &store.Pause{Since: since, Until: since.Add(30 * time.Minute)}
		if err := r.ledger.Do(context.Background(), func(tx *store.Tx) { tx.SetPause(pause) }); err != nil {
			t.Fatal(err)
		}
		r.d.Kick()
		synctest.Wait()
		at := r.put(alert{key: "a"})[0]
		time.Sleep(29 * time.Minute)
		r.d.Kick() // a token that is read again changes nothing
		r.want(at, event.Queued, "")
		time.Sleep(2 * time.Minute)
		r.want(at, event.Delivered, "")
	})
}

// Attempts under way get their grace at a stop; one that is cut off costs nothing.
func TestAStopCutsOffWhatHangs(t *testing.T) {
	bubble(t, DeliverConfig{Grace: 10 * time.Second}, func(r *rig) {
		r.put(alert{key: "first"})
		r.settle()
		r.far.set(func(ctx context.Context, q request) *callgoose.Error {
			if q.key == "slow" {
				time.Sleep(5 * time.Second)
				return nil
			}
			<-ctx.Done()
			return step("interrupted")
		})
		places := r.put(alert{key: "hangs"}, alert{key: "slow"})
		time.Sleep(time.Second)
		began := time.Now()
		r.halt()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the stop took %s", took)
		}
		r.far.set(r.far.passes)
		r.start()
		r.settle()
		r.want(places[1], event.Delivered, "")
		if rec := r.record(places[0]); rec.Outcome != event.Delivered || rec.Tries != 1 || len(r.far.of("slow")) != 1 {
			t.Errorf("%+v", rec)
		}
	})
}

// Somebody takes an event out of the queue while it waits, or while it is being sent.
func TestAnEventThatLeavesTheQueue(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		park := func(at event.Position) {
			if err := r.ledger.Do(context.Background(), func(tx *store.Tx) {
				conclude(tx, at, tx.Brief(time.Time{}, at), event.Dead, "parked")
			}); err != nil {
				t.Fatal(err)
			}
		}
		r.far.answers(unreached())
		places := r.put(alert{key: "a"}, alert{key: "a"}, alert{key: "b"}, alert{key: "c"})
		time.Sleep(time.Minute)
		park(places[0])
		r.far.set(func(_ context.Context, q request) *callgoose.Error {
			time.Sleep(time.Second)
			if q.key == "c" {
				return status(400)
			}
			return nil
		})
		for len(r.far.of("b")) == 0 || len(r.far.of("c")) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		park(places[2])
		park(places[3])
		r.settle()
		time.Sleep(time.Minute)
		r.want(places[0], event.Dead, "parked")
		r.want(places[1], event.Delivered, "")
		r.want(places[2], event.Delivered, "")
		r.want(places[3], event.Dead, "parked")
		if v := r.d.View(); v.Window != 0 || v.InFlight != 0 {
			t.Errorf("%+v", v)
		}
	})
}

// What cannot be read is a dead letter that says so, and stops nobody.
func TestWhatCannotBeReadIsADeadLetter(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.bodies.err = map[string]error{"a": event.ErrGone, "b": fmt.Errorf("notification n1.0: %w", event.ErrDamaged)}
		places := r.put(alert{key: "a"}, alert{key: "b"}, alert{key: "c"})
		r.settle()
		r.want(places[0], event.Dead, "gone")
		r.want(places[1], event.Dead, "n1.0: the stored message is damaged")
		r.want(places[2], event.Delivered, "")
		if n := len(r.far.requests()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// An order that changes with --incident-by holds for what waits already.
func TestTheLaneIsThatOfTodaysSetting(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.answers(unreached())
		r.put(alert{key: "a1", name: "disk"}, alert{key: "a2", name: "disk"})
		time.Sleep(time.Minute)
		r.cfg.ByAlertname = true
		r.restart()
		r.put(alert{key: "a3", name: "disk", resolved: true})
		failed := false
		r.far.set(func(_ context.Context, q request) *callgoose.Error {
			time.Sleep(time.Second)
			if q.key == "a1" && !failed {
				failed = true
				return status(500)
			}
			return nil
		})
		r.settle()
		var order []string
		for _, q := range r.far.requests() {
			if q.passed {
				order = append(order, q.key)
			}
		}
		if got := strings.Join(order, " "); got != "a1 a2 a3" {
			t.Error(got)
		}
	})
}

// The first events after a start wait for the probe; one line tells of each attempt.
func TestOneLineForEachAttempt(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		if v := r.d.View(); v.Circuit.State != event.Unknown {
			t.Errorf("%+v", v)
		}
		r.far.set(only("b", status(400)))
		r.put(alert{key: "a"}, alert{key: "b"})
		r.settle()
		synctest.Wait()
		for _, want := range []string{
			`level=INFO msg=attempt component=delivery event_id=`, `event_key=a alertname=a status=firing source=pmm notification_id=n1.0 attempt=1 outcome=delivered`,
			`probe=true http_status=201 effect=created callgoose_id=c`, `level=ERROR msg=attempt`, `outcome=dead`, `msg="callgoose is up"`,
		} {
			if !strings.Contains(r.logs.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		if v := r.d.View(); v.Last.Key != "a" || v.Last.Effect != "created" || !v.Oldest.IsZero() {
			t.Errorf("%+v", v)
		}
		if err := r.d.Alive(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// A token that was replaced is noticed while everything is held.
func TestAReplacedTokenIsNoticed(t *testing.T) {
	var right atomic.Bool
	bubble(t, DeliverConfig{Refresh: right.Load}, func(r *rig) {
		r.far.set(func(context.Context, request) *callgoose.Error {
			if right.Load() {
				return nil
			}
			return status(401)
		})
		at := r.put(alert{key: "a"})[0]
		time.Sleep(10 * time.Hour)
		r.state(event.Held)
		right.Store(true)
		time.Sleep(2 * time.Second)
		r.want(at, event.Delivered, "")
	})
}

// What Callgoose has and our disk does not know is bounded, also when the disk takes
// nothing any more: that is what comes twice after a start.
func TestALedgerThatFailsDoesNotLetMoreOut(t *testing.T) {
	for _, kind := range []string{"at once", "while attempts are under way"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				r := &rig{t: t, dir: dir, far: &far{t: t}, bodies: &builder{}, logs: &bytes.Buffer{}}
				r.cfg.Logger = slog.New(slog.NewTextHandler(r.logs, nil))
				r.far.fails = r.far.passes
				r.start()
				r.put(alert{key: "first"})
				r.settle()
				r.far.set(func(_ context.Context, q request) *callgoose.Error {
					time.Sleep(10 * time.Millisecond)
					if q.key == "a100" {
						if err := r.ledger.Close(); err != nil {
							t.Error(err)
						}
					}
					if kind != "at once" {
						time.Sleep(time.Second)
					}
					return nil
				})
				r.put(many("a", 500)...)
				if err := <-r.ended; !errors.Is(err, store.ErrFailed) && !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
					t.Errorf("it ended with %v", err)
				}
				if r.d.gate.unrecorded == 0 {
					t.Error("places were given back for what is not recorded")
				}
				again, _, err := store.Open(store.Config{Dir: dir, NoSync: true})
				if err != nil {
					t.Fatal(err)
				}
				sent, recorded := len(r.far.requests()), int(again.Summary().Counts[string(event.Delivered)])
				if sent-recorded > mostUnrecorded || sent < 100 {
					t.Errorf("%d were sent, %d are recorded", sent, recorded)
				}
				if err := again.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A disk that hangs lets no more out either.
func TestADiskThatHangsLetsNoMoreOut(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.put(alert{key: "first"})
		r.settle()
		release := make(chan struct{})
		var once sync.Once
		r.far.set(func(context.Context, request) *callgoose.Error {
			once.Do(func() {
				go func() {
					if err := r.ledger.Do(context.Background(), func(*store.Tx) { <-release }); err != nil {
						t.Error(err)
					}
				}()
			})
			time.Sleep(10 * time.Millisecond)
			return nil
		})
		born := many("a", 100)
		for i := range born {
			born[i].claimed = time.Now()
		}
		r.put(born...)
		time.Sleep(time.Minute)
		if n := len(r.far.requests()) - 1; n != mostUnrecorded {
			t.Errorf("%d requests, want %d", n, mostUnrecorded)
		}
		close(release)
		r.settle()
	})
}

// The window is bounded, whatever waits, and the oldest are in it.
func TestTheWindowIsBounded(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.far.answers(unreached())
		synctest.Wait()
		r.d.w.most = 1000 // the loop sleeps
		places := r.put(many("a", 3000)...)
		time.Sleep(time.Minute)
		v := r.d.View()
		if v.Window < 1000 || v.Window >= 1000+chunk || !v.Oldest.Equal(r.queued()[0].QueuedAt) {
			t.Errorf("%d in memory, the oldest of %s", v.Window, v.Oldest)
		}
		r.far.set(r.far.passes)
		r.settle()
		for _, at := range places {
			r.want(at, event.Delivered, "")
		}
	})
}

// A small outage is probed with each lane once, then at the pace of the outage.
func TestAFewLanesDoNotHammer(t *testing.T) {
	for _, err := range []*callgoose.Error{status(401), status(503), step("timeout"), unreached()} {
		bubble(t, DeliverConfig{}, func(r *rig) {
			r.far.answers(err)
			r.put(many("a", 3)...)
			time.Sleep(time.Hour)
			if n := len(r.far.requests()); n < 60 || n > 120 {
				t.Errorf("%v: %d requests in an hour", err, n)
			}
		})
	}
}

// Somebody who waits for an outcome behind it in its lane does not wait for company.
func TestOutcomesGatherOnlyWhenNobodyWaits(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.put(alert{key: "first"})
		r.settle()
		began := time.Now()
		places := r.put(alert{key: "a"}, alert{key: "a"}, alert{key: "a"})
		r.settle()
		for i, at := range places {
			took := r.record(at).SettledAt.Sub(began)
			if i < 2 && took != 0 || i == 2 && took != 20*time.Millisecond {
				t.Errorf("event %d was settled after %s", i, took)
			}
		}
	})
}

// ages keeps what is reported of first deliveries.
type ages struct {
	silent
	list chan time.Duration
}

func (a ages) FirstTaken(age time.Duration) { a.list <- age }

func TestTheAgeAtDeliveryIsThatOfAFiringAlertTakenForTheFirstTime(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when a bubble begins
	for name, c := range map[string]struct {
		a    alert
		want []time.Duration
	}{
		"it counts from the beginning of the alert, not from its receipt": {alert{began: now.Add(-90 * time.Second), queuedAt: now.Add(-time.Second)}, []time.Duration{90 * time.Second}},
		"the clock of PMM is ahead":                                       {alert{began: now.Add(time.Minute)}, []time.Duration{0}},
		"PMM did not say when it began":                                   {alert{}, nil},
		"a recovery":                                                      {alert{began: now.Add(-time.Hour), resolved: true}, nil},
		"it was taken before, and is sent again":                          {alert{began: now.Add(-time.Hour), attempts: []event.Attempt{{Result: "delivered", Sent: true}}}, nil},
		"it was refused before, and is sent again":                        {alert{began: now.Add(-time.Hour), attempts: []event.Attempt{{Result: "dead", Sent: true}}}, []time.Duration{time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			seen := ages{list: make(chan time.Duration, 9)}
			bubble(t, DeliverConfig{Observer: seen}, func(r *rig) {
				c.a.key = "a"
				at := r.put(c.a)[0]
				r.settle()
				r.want(at, event.Delivered, "")
				synctest.Wait()
				close(seen.list)
				var got []time.Duration
				for age := range seen.list {
					got = append(got, age.Truncate(time.Second)) // the answer took a moment
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("reported %v, want %v", got, c.want)
				}
			})
		})
	}
}

// An event says when it is tried again.
func TestTheViewSaysWhatIsTriedNext(t *testing.T) {
	bubble(t, DeliverConfig{RetryMin: time.Minute, RetryMax: time.Minute}, func(r *rig) {
		r.put(alert{key: "first"})
		r.settle()
		r.far.set(only("a", status(500)))
		at := r.put(alert{key: "a"})[0]
		time.Sleep(time.Second)
		v := r.d.View()
		if len(v.Next) != 1 || v.Next[0].Place != at || time.Until(v.Next[0].At) > time.Minute || !strings.Contains(r.logs.String(), "retry_in=1m0s") {
			t.Errorf("%+v", v.Next)
		}
		r.far.answers(unreached())
		r.put(alert{key: "b"})
		time.Sleep(time.Second)
		if v := r.d.View(); v.Circuit.State != event.Down || time.Until(v.NextProbe) <= 0 {
			t.Errorf("%+v", v)
		}
	})
}

// A repeated outage that many events answer for does not make them wait for themselves.
func TestAnOutageCostsNoBackoff(t *testing.T) {
	bubble(t, DeliverConfig{}, func(r *rig) {
		r.put(alert{key: "first"})
		r.settle()
		for range 3 {
			r.far.answers(status(503))
			r.put(many("a", 50)...)
			time.Sleep(12 * time.Hour)
			r.far.set(r.far.passes)
			if took := r.settle(); took > time.Minute+time.Second {
				t.Errorf("it took %s", took)
			}
		}
	})
}

func BenchmarkDrain(b *testing.B) {
	ledger, _, err := store.Open(store.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ledger.Close() }()
	at := func(i int) event.Position { return event.Position{Seq: uint64(i) + 1} }
	for from := 0; from < b.N; from += 500 {
		if err := ledger.Do(context.Background(), func(tx *store.Tx) {
			for i := from; i < min(from+500, b.N); i++ {
				w := store.Waiting{At: at(i), Pos: at(i), ReceivedAt: time.Now().UTC(), Status: event.Firing, Key: fmt.Sprintf("pmm-%016x", i), Source: "pmm", Alertname: "MySQL Down", QueuedAt: time.Now()}
				r := recordOf(tx, &w)
				r.ID, r.Labels = event.ID(w.Key, w.Status, ""), map[string]string{"alertname": "MySQL Down", "instance": fmt.Sprint(i), "severity": "critical"}
				tx.PutRecord(r)
				tx.PutWaiting(&w)
				tx.SetProgress(w.At)
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan struct{})
	d := NewDeliverer(DeliverConfig{Logger: slog.New(slog.DiscardHandler), Observer: &counter{left: int64(b.N), done: done}}, ledger, &builder{}, instant{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	before := ledger.Changes()
	b.ResetTimer()
	go func() { ended <- d.Run(ctx) }()
	<-done
	b.StopTimer()
	b.ReportMetric(float64(ledger.Changes()-before)/float64(b.N), "commits/op")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

type instant struct{}

func (instant) Renew() {}
func (instant) Send(context.Context, []byte) (callgoose.Reply, error) {
	return callgoose.Reply{Status: 201, Effect: "created"}, nil
}

// counter closes done when all are settled.
type counter struct {
	silent
	left int64
	done chan struct{}
}

func (c *counter) Settled(event.Outcome, time.Duration) {
	if atomic.AddInt64(&c.left, -1) == 0 {
		close(c.done)
	}
}
