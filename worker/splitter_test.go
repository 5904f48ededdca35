package worker

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

func TestAFalseRecoveryIsFollowedByANewIncident(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0))
	r.post(minutes(5), 0, resolved("a", t0, minutes(5)))
	r.post(minutes(6), 0, firing("a", t0))
	r.post(minutes(60), 0, firing("a", t0))
	r.decide()
	r.want(r.became(), "queued", "queued", "queued", "suppressed repeat")
	list := r.records()
	if list[0].ID == list[2].ID || r.sent(list[2])["event_id"] == r.sent(list[0])["event_id"] {
		t.Error("the episode that goes on is the same event again")
	}
	r.settle(event.Delivered)
	r.post(minutes(70), 0, resolved("a", t0, minutes(70)))
	r.decide()
	r.want(r.line(), "resolved pmm-a")
}

func TestAStaleRecoveryClosesNothing(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0))
	r.post(minutes(10), 0, resolved("a", t0, minutes(10)))
	r.post(minutes(20), 0, firing("a", minutes(20)))
	r.post(minutes(21), 0, resolved("a", t0, minutes(10)))
	r.post(minutes(30), 0, firing("a", minutes(20)))
	r.decide()
	r.want(r.became(), "queued", "queued", "queued", "suppressed stale", "suppressed repeat")
}

// PMM may tell of an episode by its recovery first: what was on its way then is over.
func TestAFiringThatItsRecoveryOvertookOpensNothing(t *testing.T) {
	for name, recoveries := range map[string][]member{
		"it closes an older episode": {resolved("a", minutes(20), minutes(21))},
		"nothing is open":            {resolved("a", t0, minutes(10)), resolved("a", minutes(20), minutes(21))},
	} {
		t.Run(name, func(t *testing.T) {
			r := newStage(t, SplitConfig{})
			r.post(minutes(1), 0, firing("a", t0))
			for _, a := range recoveries {
				r.post(a.EndsAt, 0, a)
			}
			r.post(minutes(22), 2*time.Minute, firing("a", minutes(20)))
			r.decide()
			r.want(r.line(), "firing pmm-a", "resolved pmm-a")
			r.post(minutes(30), 0, firing("a", minutes(20)))
			r.decide()
			r.want(r.line(), "firing pmm-a", "resolved pmm-a", "firing pmm-a")
		})
	}
}

func TestARecoveryThatCallgooseDoesNotHaveGoesOutAgain(t *testing.T) {
	for _, outcome := range []event.Outcome{event.Discarded, event.Dead} {
		r := newStage(t, SplitConfig{})
		r.post(minutes(1), 0, firing("a", t0))
		r.decide()
		r.settle(event.Delivered)
		r.post(minutes(10), 0, resolved("a", t0, minutes(10)))
		r.decide()
		r.settle(outcome)
		r.post(minutes(20), 0, resolved("a", t0, minutes(10)))
		r.decide()
		r.want(r.line(), "resolved pmm-a")
		r.settle(event.Delivered)
		r.post(minutes(30), 0, resolved("a", t0, minutes(10)))
		r.decide()
		r.want(r.became(), "delivered", "delivered", "suppressed already_resolved")
	}
}

func TestOnlyARecoveryWithoutAFingerprintIsAdopted(t *testing.T) {
	of := func(mount, fingerprint string) member {
		a := firing(fingerprint, t0)
		a.Labels = map[string]string{"alertname": "Disk", "instance": "h", "mountpoint": mount}
		return a
	}
	own, trimmed := of("/data", "other"), of("/data", "")
	delete(own.Labels, "mountpoint")
	delete(trimmed.Labels, "mountpoint")
	own.Status, trimmed.Status = event.Resolved, event.Resolved
	t.Run("with one", func(t *testing.T) {
		r := newStage(t, SplitConfig{})
		r.post(minutes(1), 0, of("/data", "a"))
		r.post(minutes(2), 0, own)
		r.post(minutes(3), 0, of("/data", "a"))
		r.decide()
		r.want(r.line(), "firing pmm-a", "resolved pmm-other")
	})
	t.Run("without", func(t *testing.T) {
		r := newStage(t, SplitConfig{})
		r.post(minutes(1), 0, of("/data", "a"))
		r.post(minutes(2), 0, trimmed)
		r.post(minutes(3), 0, trimmed)
		r.decide()
		r.want(r.line(), "firing pmm-a", "resolved pmm-a")
		sent := r.sent(r.records()[1])
		if labels := sent["commonLabels"].(map[string]any); labels["mountpoint"] != "/data" || sent["commonAnnotations"].(map[string]any)["summary"] != "down" {
			t.Errorf("what it lacks is not completed: %v", sent)
		}
	})
	t.Run("without, and several fit", func(t *testing.T) {
		r := newStage(t, SplitConfig{})
		r.post(minutes(1), 0, of("/data", "a"), of("/var", "b"))
		r.post(minutes(2), 0, trimmed)
		r.decide()
		if line := r.line(); len(line) != 3 || line[2] == "resolved pmm-a" || line[2] == "resolved pmm-b" {
			t.Errorf("queued are %q", line)
		}
	})
}

// Two disks of one host, and the same alert of two PMMs, would share an incident.
func TestTwoOpenAlertsNeverShowTheSameName(t *testing.T) {
	shown := func(r *stage, rec *event.Record) any {
		return r.sent(rec)["commonLabels"].(map[string]any)["alertname"]
	}
	r := newStage(t, SplitConfig{})
	disk := func(fingerprint string) member {
		a := firing(fingerprint, t0)
		a.Labels = map[string]string{"alertname": "Disk", "instance": "h", "mountpoint": fingerprint}
		return a
	}
	gone := disk("b")
	gone.Status, gone.EndsAt = event.Resolved, minutes(9)
	r.post(minutes(1), 0, disk("a"))
	r.post(minutes(2), 0, disk("b"))
	r.store(event.Notification{Source: "eu", ReceivedAt: minutes(3), Body: body(t, disk("a"))})
	r.post(minutes(9), 0, gone)
	r.decide()
	list := r.records()
	a, b, eu, ended := shown(r, list[0]), shown(r, list[1]), shown(r, list[2]), shown(r, list[3])
	if a != "Disk [h]" || a == b || a == eu || b == eu || ended != b {
		t.Errorf("shown are %v, %v, %v, and the recovery %v", a, b, eu, ended)
	}
	r.settle(event.Delivered)
	over := disk("a")
	over.Status, over.EndsAt = event.Resolved, minutes(20)
	r.post(minutes(20), 0, over)
	again := disk("c")
	r.post(minutes(21), 0, again) // before the recovery of a is delivered
	r.decide()
	if list = r.records(); shown(r, list[5]) == a {
		t.Error("a name is given again while its recovery is queued")
	}
	r.settle(event.Delivered)
	r.post(minutes(22), 0, disk("d"))
	r.decide()
	if list = r.records(); shown(r, list[6]) != a {
		t.Errorf("a free name is not given: %v", shown(r, list[6]))
	}
}

// The name of an incident is free only when Callgoose has its recovery, and a recovery
// that is sent again closes nothing that shows its name by then.
func TestARecoveryNeverClosesTheIncidentOfAnotherAlert(t *testing.T) {
	disk := func(name string, status event.Status, at time.Time) member {
		a := firing(name, at)
		a.Labels = map[string]string{"alertname": "Disk", "instance": "h", "mountpoint": name}
		if a.Status = status; status == event.Resolved {
			a.EndsAt = at
		}
		return a
	}
	recovered := func(t *testing.T, byName bool, outcome event.Outcome) *stage {
		r := newStage(t, SplitConfig{Form: Form{ByAlertname: byName}})
		r.post(minutes(1), 0, disk("a", event.Firing, minutes(1)))
		r.post(minutes(2), 0, disk("a", event.Resolved, minutes(2)))
		r.decide()
		r.settle(outcome)
		return r
	}
	shows := func(r *stage, i int) any {
		return r.sent(r.records()[i])["commonLabels"].(map[string]any)["alertname"]
	}
	for name, byName := range map[string]bool{"alert": false, "alertname": true} {
		t.Run(name+"/sent again by a person", func(t *testing.T) {
			r := recovered(t, byName, event.Delivered)
			r.post(minutes(3), 0, disk("b", event.Firing, minutes(3)))
			r.decide()
			r.settle(event.Delivered)
			rec := r.records()[1]
			if err := r.ledger.View(func(tx *store.Tx) {
				c := Choose(tx, event.Filter{Status: event.Resolved}, Rules{}, func(*event.Record) {})
				if len(c.Refs) != 0 || c.Superseded != 1 {
					t.Errorf("chosen: %+v", c)
				}
			}); err != nil {
				t.Fatal(err)
			}
			go func() { _ = r.split.Run(t.Context()) }()
			if queued, err := r.split.Requeue(t.Context(), []Ref{{rec.ReceivedAt, rec.Pos}}, false); err != nil || len(queued) != 0 {
				t.Errorf("queued %v, %v", queued, err)
			}
		})
		t.Run(name+"/said again by PMM", func(t *testing.T) {
			r := recovered(t, byName, event.Delivered)
			r.post(minutes(3), 0, disk("b", event.Firing, minutes(3)))
			r.decide()
			r.settle(event.Delivered)
			if err := r.ledger.Do(t.Context(), func(tx *store.Tx) { // as a replay that was refused leaves it
				rec := r.records()[1]
				rec.Outcome = event.Dead
				tx.PutRecord(rec)
			}); err != nil {
				t.Fatal(err)
			}
			r.post(minutes(4), 0, disk("a", event.Resolved, minutes(2)))
			r.decide()
			r.want(r.became()[3:], "suppressed still_firing")
		})
		t.Run(name+"/of an alert never seen", func(t *testing.T) {
			r := newStage(t, SplitConfig{Form: Form{ByAlertname: byName}})
			r.post(minutes(3), 0, disk("b", event.Firing, minutes(3)))
			r.post(minutes(4), 0, disk("a", event.Resolved, minutes(2)))
			r.decide()
			if byName {
				r.want(r.became(), "queued", "suppressed still_firing")
			} else if shows(r, 0) == shows(r, 1) {
				t.Error("a recovery shows the name of what fires")
			}
		})
	}
	for _, outcome := range []event.Outcome{event.Dead, event.Discarded, event.Unknown} {
		t.Run("the recovery is "+string(outcome)+", and a start", func(t *testing.T) {
			r := recovered(t, false, outcome)
			r.reopen(false)
			r.post(minutes(3), 0, disk("b", event.Firing, minutes(3)))
			r.decide()
			if shows(r, 2) == shows(r, 0) {
				t.Error("another alert gets the name of an incident that is open")
			}
		})
	}
	t.Run("the recovery is queued again", func(t *testing.T) {
		r := recovered(t, false, event.Delivered)
		r.post(minutes(3), 0, disk("b", event.Firing, minutes(3)))
		r.post(minutes(4), 0, disk("b", event.Resolved, minutes(4)))
		r.decide()
		r.settle(event.Delivered)
		rec := r.records()[1]
		if _, err := r.queue.Publish(t.Context(), requeueOf([]Ref{{rec.ReceivedAt, rec.Pos}}, false)); err != nil {
			t.Fatal(err)
		}
		r.post(minutes(5), 0, disk("c", event.Firing, minutes(5)))
		r.decide()
		r.want(r.line(), "resolved pmm-a", "firing pmm-c")
		if shows(r, len(r.records())-1) == shows(r, 0) {
			t.Error("another alert gets the name while its recovery is queued again")
		}
	})
}

func TestWithAlertnameTheLastRecoveryCloses(t *testing.T) {
	r := newStage(t, SplitConfig{Form: Form{ByAlertname: true}})
	r.post(minutes(1), 0, firing("a", t0), firing("b", t0))
	r.post(minutes(2), 0, resolved("a", t0, minutes(2)))
	r.post(minutes(3), 0, resolved("b", t0, minutes(3)))
	r.post(minutes(10), 0, firing("gone", minutes(10)))
	r.post(minutes(25*60), 0, firing("a", minutes(25*60)))
	r.post(minutes(25*60+1), 0, resolved("a", minutes(25*60), minutes(25*60+1)))
	r.decide()
	r.want(r.became(), "queued", "queued", "suppressed still_firing", "queued", "queued", "queued", "queued")
}

// A wall clock that is set a day on is no day in which PMM did not name what fires.
func TestWithAlertnameAClockThatJumpsForgetsNobody(t *testing.T) {
	const day = 25 * time.Hour
	for name, c := range map[string]struct {
		ahead time.Duration
		want  string
	}{"a day went by": {0, "queued"}, "the clock was set a day on": {day, "suppressed still_firing"}} {
		t.Run(name, func(t *testing.T) {
			r := newStage(t, SplitConfig{Form: Form{ByAlertname: true}})
			now := time.Now()
			then := now.Add(-day)
			r.post(then, 0, firing("a", then), firing("b", then))
			r.decide()
			r.split.clocks.wall = r.split.clocks.wall.Add(-c.ahead)
			r.post(now, 0, resolved("a", then, now))
			r.decide()
			r.want(r.became(), "queued", "queued", c.want)
		})
	}
}

func TestWhatIsImportedDoesNotTouchWhatFiresNow(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(600), 0, firing("a", minutes(600)))
	for _, n := range []event.Notification{
		{BeganAt: minutes(1), ReceivedAt: minutes(1), Body: body(t, firing("a", t0))},
		{BeganAt: minutes(9), ReceivedAt: minutes(9), Body: body(t, resolved("a", t0, minutes(9)))},
	} {
		n.Source, n.Origin = "pmm", event.Imported
		r.store(n)
	}
	r.decide()
	r.want(r.became(), "queued", "suppressed late", "suppressed late")
}

func TestAnEpisodeThatFiredAndResolvedInAnOutageCollapses(t *testing.T) {
	down := true
	r := newStage(t, SplitConfig{Collapse: true, Outage: func() bool { return down }})
	r.post(minutes(1), 0, firing("a", t0), firing("b", t0))
	r.post(minutes(2), 0, resolved("a", t0, minutes(2)))
	r.decide()
	r.want(r.line(), "firing pmm-b")
	down = false
	r.post(minutes(3), 0, resolved("b", t0, minutes(3)))
	r.decide()
	r.want(r.line(), "firing pmm-b", "resolved pmm-b")
}

func TestABodyIsDecidedOnInStepsThatSurvive(t *testing.T) {
	r := newStage(t, SplitConfig{})
	var many []member
	const n = 2300
	for i := range n {
		many = append(many, firing(fmt.Sprintf("h%d", i), t0))
	}
	r.post(minutes(1), 0, many...)
	r.post(minutes(2), 0, firing("last", t0))
	for steps := 1; ; steps++ {
		more, err := r.split.step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			break
		}
		if got := len(r.line()); got > steps*stepAlerts {
			t.Fatalf("after %d steps %d are queued", steps, got)
		}
		r.reopen(false)
	}
	if got := r.line(); len(got) != n+1 || got[n] != "firing pmm-last" {
		t.Errorf("%d are queued", len(got))
	}
}

// A body of 20,000 unknown recoveries beside 5,000 open alerts of their name took
// hours once: here it counts what is read, not how long it takes.
func TestTheCostOfABodyIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, byName := range []bool{false, true} {
		r := newStage(t, SplitConfig{Form: Form{ByAlertname: byName}})
		var open, unknown []member
		for i := range 5000 {
			open = append(open, firing(fmt.Sprintf("h%d", i), t0))
		}
		for i := range 20_000 {
			a := resolved(fmt.Sprintf("x%d", i), t0, minutes(1))
			if a.Fingerprint = ""; i%2 == 0 {
				a.Fingerprint = fmt.Sprintf("x%d", i)
			}
			unknown = append(unknown, a)
		}
		r.post(minutes(1), 0, open...)
		r.decide()
		r.post(minutes(2), 0, unknown...)
		began := time.Now()
		r.decide()
		// 25 ms for one of them were the fault: 500 s. A hundred times faster is enough.
		if took := time.Since(began); took > time.Minute {
			t.Errorf("by name %v: %s", byName, took)
		}
	}
}

// A body of alerts that cannot be used is told in few words, however many they are.
func TestUnusableAlertsOfABodyAreFewLogLines(t *testing.T) {
	var log bytes.Buffer
	r := newStage(t, SplitConfig{})
	r.split.log = slog.New(slog.NewTextHandler(&log, nil))
	const n = 3000
	r.store(event.Notification{Source: "pmm", BeganAt: t0, ReceivedAt: t0, Alerts: n + 1, Body: fmt.Appendf(nil,
		`{"version":"1","status":"firing","alerts":[%s{"status":"firing","labels":{"alertname":"Good"}}]}`, strings.Repeat("7,", n))})
	r.decide()
	if lines := strings.Count(log.String(), "\n"); lines == 0 || lines > n/100 {
		t.Errorf("%d log lines for %d alerts", lines, n)
	}
	if got := r.line(); len(got) != 1 {
		t.Errorf("%d are queued beside them", len(got))
	}
}

// However many large bodies wait, one at a time is taken apart.
func TestFewBytesAreTakenApartAtATime(t *testing.T) {
	r := newStage(t, SplitConfig{})
	for i := range 5 {
		a := firing(fmt.Sprint("h", i), t0)
		a.Labels["long"] = strings.Repeat("x", keepNotes)
		r.post(t0, 0, a)
	}
	loaded, err := r.split.load(t.Context(), r.queue.Last())
	if err != nil || len(loaded) != 1 {
		t.Errorf("%d bodies of %d bytes are taken apart at once, %v", len(loaded), keepNotes, err)
	}
	if r.decide(); len(r.line()) != 5 {
		t.Errorf("%d of 5 events are queued", len(r.line()))
	}
}

// Of an alert with huge labels the ledger keeps little, its name in any case; Callgoose
// gets all of it.
func TestTheLedgerKeepsLittleOfHugeLabels(t *testing.T) {
	many := map[string]string{}
	for i := range 50_000 {
		many[fmt.Sprintf("a%05d", i)] = "x"
	}
	for name, labels := range map[string]map[string]string{
		"one long label": {"long": strings.Repeat("x", 1<<20)}, "a long name": {"alertname": strings.Repeat("é", 1<<20)}, "many labels": many,
	} {
		r := newStage(t, SplitConfig{})
		a := firing("h", t0)
		maps.Copy(a.Labels, labels)
		r.post(t0, 0, a, a) // an event, and a repeat
		r.decide()
		for _, rec := range r.records() {
			size := len(rec.Alertname)
			for k, v := range rec.Labels {
				size += len(k) + len(v)
			}
			if size > notedLabels+notedValue || rec.Alertname == "" || !strings.HasPrefix(a.Labels["alertname"], rec.Alertname) {
				t.Errorf("%s: %d bytes of the labels are kept", name, size)
			}
		}
		sent := r.sent(r.records()[0])["commonLabels"].(map[string]any)
		for k, v := range a.Labels {
			if k != "alertname" && sent[k] != v || !strings.HasPrefix(sent["alertname"].(string), a.Labels["alertname"]) {
				t.Fatalf("%s: Callgoose does not get label %.20s as it is", name, k)
			}
		}
	}
}

func TestEventsArePutInLineAgain(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0), firing("b", t0))
	r.decide()
	r.settle(event.Delivered)
	r.post(minutes(2), 0, firing("c", t0))
	r.decide()
	list := r.records()
	refs := []Ref{{list[1].ReceivedAt, list[1].Pos}, {list[2].ReceivedAt, list[2].Pos}, {t0, event.Position{Seq: 99}}, {list[0].ReceivedAt, list[0].Pos}}
	go func() { _ = r.split.Run(t.Context()) }()
	queued, err := r.split.Requeue(t.Context(), refs, false)
	if err != nil || !reflect.DeepEqual(queued, []Ref{refs[0], refs[3]}) {
		t.Errorf("queued: %v, %v", queued, err)
	}
	r.want(r.line(), "firing pmm-c", "firing pmm-b", "firing pmm-a")
}

func TestAReplayMakesNoIncidentWrong(t *testing.T) {
	for name, byName := range map[string]bool{"alert": false, "alertname": true} {
		t.Run(name, func(t *testing.T) {
			r := newStage(t, SplitConfig{Form: Form{ByAlertname: byName}})
			r.post(minutes(1), 0, firing("a", t0))
			r.post(minutes(2), 0, resolved("a", t0, minutes(2)))
			r.decide()
			r.settle(event.Discarded)
			if byName {
				r.post(minutes(9), 0, firing("b", minutes(9)))
			} else {
				r.post(minutes(9), 0, firing("a", minutes(9)))
			}
			r.decide()
			if err := r.ledger.View(func(tx *store.Tx) {
				c := Choose(tx, event.Filter{Outcomes: []event.Outcome{event.Discarded}}, Rules{}, func(*event.Record) {})
				if len(c.Refs) != 0 || c.Closed != 1 || c.Superseded != 1 {
					t.Errorf("chosen: %+v", c)
				}
				c = Choose(tx, event.Filter{}, Rules{IncludeClosed: true, First: 2}, func(*event.Record) {})
				if len(c.Refs) != 1 || c.Gone != 1 || c.Waiting != 1 {
					t.Errorf("with what is closed: %+v", c)
				}
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAnEpisodeIsClosedByHand(t *testing.T) {
	r := newStage(t, SplitConfig{})
	plain := firing("", t0) // its fingerprint is made of its labels
	r.post(minutes(1), 0, firing("a", t0), plain)
	r.decide()
	r.settle(event.Delivered)
	for _, rec := range r.records() {
		r.closes(rec.Key, minutes(9))
		r.decide()
		r.want(r.line(), "resolved "+rec.Key)
		r.settle(event.Delivered)
	}
}

// A mark that cannot name all that waits says less, never more.
func TestALongMarkStaysTrue(t *testing.T) {
	r := newStage(t, SplitConfig{})
	at := func(i int) event.Position { return event.Position{Seq: uint64(2*i + 1), Item: uint32(i)} }
	if err := r.ledger.Do(t.Context(), func(tx *store.Tx) {
		for i := range event.MaxMarked + 100 {
			tx.PutWaiting(&store.Waiting{At: at(i), Pos: at(i)})
		}
		tx.SetProgress(event.Position{Seq: 1 << 40})
	}); err != nil {
		t.Fatal(err)
	}
	mark, err := (&Marker{queue: r.queue, ledger: r.ledger}).settled()
	if err != nil || len(mark.Waiting) != event.MaxMarked || mark.Waiting[7] != at(7) || mark.UpTo != at(event.MaxMarked-1) {
		t.Errorf("up to %v with %d waiting, %v", mark.UpTo, len(mark.Waiting), err)
	}
}

// What was settled is not sent again, what was waiting is, and both with the same
// ids and bytes.
func TestALostLedgerIsRebuilt(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("a", t0), firing("b", t0))
	r.post(minutes(2), 0, resolved("b", t0, minutes(2)))
	r.decide()
	r.settle(event.Delivered)
	r.post(minutes(3), 0, firing("c", t0), firing("a", t0))
	r.decide()
	before := r.records()
	if err := r.marker.pass(t.Context(), time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	r.post(minutes(4), 0, firing("d", t0)) // behind the mark
	r.decide()
	r.settle(event.Delivered)
	r.reopen(true)
	r.decide()
	r.want(r.became(), "unknown settled before the ledger was rebuilt", "unknown settled before the ledger was rebuilt",
		"unknown settled before the ledger was rebuilt", "queued", "suppressed repeat", "queued")
	for i, rec := range r.records()[:5] {
		if rec.ID != before[i].ID || rec.Key != before[i].Key || rec.Pos != before[i].Pos {
			t.Errorf("was %+v, is %+v", before[i], rec)
		}
	}
	r.post(minutes(20), 0, firing("a", t0)) // its outcome is unknown: once more
	r.post(minutes(21), 0, firing("a", t0))
	r.decide()
	r.want(r.line(), "firing pmm-c", "firing pmm-d", "firing pmm-a")
	r.reopen(true) // again, before anything new is settled
	r.decide()
	r.want(r.line(), "firing pmm-c", "firing pmm-d")
}

// What is open at Callgoose under a name is closed under that name, whatever was lost here.
func TestNamesAreShownAgainAfterTheLedgerIsLost(t *testing.T) {
	r := newStage(t, SplitConfig{})
	disk := func(fingerprint string, at, ended time.Time) member {
		a := resolved(fingerprint, at, ended)
		if a.Labels["instance"] = "h"; ended.IsZero() {
			a.Status = event.Firing
		}
		return a
	}
	for n, a := range []member{
		disk("a", t0, time.Time{}), disk("a", t0, minutes(10)), disk("b", minutes(20), time.Time{}), disk("a", minutes(30), time.Time{}),
	} {
		r.post(minutes(10*n), 0, a)
		r.decide()
		r.settle(event.Delivered)
	}
	shown := func(rec *event.Record) any { return r.sent(rec)["commonLabels"].(map[string]any)["alertname"] }
	opened := r.records()[2:]
	want := []any{shown(opened[0]), shown(opened[1])}
	if err := r.marker.pass(t.Context(), time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	r.reopen(true)
	r.post(minutes(40), 0, disk("b", minutes(20), minutes(40)))
	r.post(minutes(50), 0, disk("a", minutes(30), minutes(50)))
	r.decide()
	closed := r.records()[4:]
	if got := []any{shown(closed[0]), shown(closed[1])}; !slices.Equal(got, want) {
		t.Errorf("closed are %q, opened were %q", got, want)
	}
}

// What was sent behind the mark is not known: nothing of it is collapsed, in an outage or a storm.
func TestWhatMayHaveBeenSentBeforeALedgerWasLostIsNotCollapsed(t *testing.T) {
	for name, cfg := range map[string]SplitConfig{
		"outage": {Collapse: true, Outage: func() bool { return true }},
		"storm":  {Storm: StormRule{Most: 1, Within: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			storm := cfg.Storm
			cfg.Storm = StormRule{}
			r := newStage(t, cfg)
			r.post(minutes(1), 0, firing("a", t0), firing("b", t0), firing("c", t0))
			r.decide()
			r.settle(event.Delivered)
			r.cfg.Storm = storm
			r.reopen(true)
			r.post(minutes(2), 0, resolved("c", t0, minutes(2)))
			r.decide()
			if line := r.line(); line[len(line)-1] != "resolved pmm-c" {
				t.Errorf("queued are %q: the incident stays open", line)
			}
		})
	}
}

// A thousand recoveries that are held, or a thousand keys that Callgoose refuses, hide
// nothing of what was settled behind them.
func TestWhatWasSettledBehindManyThatWaitIsNotSentAgain(t *testing.T) {
	r := newStage(t, SplitConfig{})
	r.post(minutes(1), 0, firing("last", t0))
	for n := range 20 {
		var some []member
		for i := range 50 {
			some = append(some, firing(fmt.Sprintf("h%d.%d", n, i), t0))
		}
		r.post(minutes(1), 0, some...)
	}
	r.post(minutes(2), 0, resolved("last", t0, minutes(2)))
	r.decide()
	before := r.line()
	r.settleOnly(event.Delivered, "pmm-last")
	if err := r.marker.pass(t.Context(), time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	r.reopen(true)
	r.decide()
	r.want(r.line(), before[1:len(before)-1]...)
}

// Whatever came in and whenever the ledger is lost: what is rebuilt from the
// notifications is what the running splitter made of them.
func TestARebuiltLedgerSaysWhatTheRunningOneSaid(t *testing.T) {
	for seed := range uint64(8) {
		r := newStage(t, SplitConfig{Form: Form{ByAlertname: seed%2 == 1}})
		dice := rand.New(rand.NewPCG(seed, 1))
		for n := range 120 {
			var alerts []member
			for range 1 + dice.IntN(4) {
				start := minutes(n - dice.IntN(20))
				a := firing(fmt.Sprintf("h%d", dice.IntN(6)), start)
				if dice.IntN(3) == 0 {
					a = resolved(fmt.Sprintf("h%d", dice.IntN(6)), start, minutes(n))
				}
				if dice.IntN(8) == 0 {
					a.Fingerprint = ""
				}
				alerts = append(alerts, a)
			}
			r.post(minutes(n), time.Duration(dice.IntN(120))*time.Second, alerts...)
		}
		r.decide()
		states := func() (episodes []store.Episode, ids []string) {
			if err := r.ledger.View(func(tx *store.Tx) {
				for n := range 6 {
					ep := tx.Episode(fmt.Sprintf("pmm-h%d", n))

					if ep != nil {
						ep.Shared = false // nobody knows what was sent before
						episodes = append(episodes, *ep)
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
			for _, rec := range r.records() {
				ids = append(ids, rec.ID+" "+string(rec.Outcome)+" "+rec.Reason)
			}
			return episodes, ids
		}
		episodes, ids := states()
		r.reopen(true)
		r.decide()
		again, idsAgain := states()
		if !reflect.DeepEqual(episodes, again) || !reflect.DeepEqual(ids, idsAgain) {
			t.Fatalf("seed %d:\nrunning %+v\nrebuilt %+v", seed, episodes, again)
		}
	}
}

// What was damaged is counted when the ledger is lost as well, wherever it stood.
func TestDamageIsCountedWhenTheLedgerIsRebuilt(t *testing.T) {
	for name, at := range map[string]float64{"the first": 0.1, "one between others": 0.5, "the last": 0.95} {
		r := newStage(t, SplitConfig{})
		for i := range 3 {
			r.post(t0, 0, firing(fmt.Sprint("h", i), t0))
		}
		r.decide()
		r.close()
		file := filepath.Join(r.dir, "jetstream", "jetstream", "$G", "streams", "NOTIFICATIONS", "msgs", "1.blk")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b[int(at*float64(len(b)))] ^= 4
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r.reopen(true)
		r.decide()
		if n := r.ledger.Summary().Counts["damaged"]; n != 1 {
			t.Errorf("%s: %d notifications are counted as damaged; %q", name, n, r.became())
		}
	}
}
