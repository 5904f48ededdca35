package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/testdata/webhook"
)

// FuzzSplit: every member of a body that was accepted comes out once, in its
// place, with a body for Callgoose that is the same whenever it is made.
func FuzzSplit(f *testing.F) {
	for b := range webhook.Bodies() {
		f.Add(b, false)
	}
	f.Add([]byte(`{"groupKey":"x","status":"firing","alerts":[null,{"labels":{"alertname":"TestAlert"},"startsAt":"2026-11-23T03:00:00Z"},[],{"labels":{"a":"b"},"status":"resolved","endsAt":"9999-12-31T23:59:59Z"}]}`), true)
	f.Add([]byte(`{"alerts":[{"status":"firing","fingerprint":"f","labels":{"pmm_callgoose":"heartbeat"}}],"title":1,"alerts ":{}}`), true)
	f.Add([]byte(`{"alerts":[]}`), false)
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	ledger, _, err := store.Open(store.Config{Dir: f.TempDir(), NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = ledger.Close() })
	form := map[bool]uint32{}
	for _, byName := range []bool{false, true} {
		if err := ledger.Do(context.Background(), func(tx *store.Tx) {
			form[byName] = tx.FormOf(Form{Layout: formLayout, From: "PerconaPMM", ByAlertname: byName, LateAfter: 5 * time.Minute}.String())
		}); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, byName bool) {
		members, _, err := pmm.Check(body)
		n := event.Notification{Source: "pmm", ReceivedAt: now, Body: body, Alerts: members}
		out := split(n, event.Position{Seq: 7, Note: 2})
		if err != nil { // kept whole, as what cannot be used
			if len(out.members) != 1 || out.members[0].unusable == nil || out.members[0].unusable.Reason == "" || !bytes.Equal(out.raw(0), body) {
				t.Fatalf("refused (%v), and split into %+v", err, out.members)
			}
			return
		}
		if len(out.members) != members {
			t.Fatalf("%d of %d members came out", len(out.members), members)
		}
		b := NewBuilder(NewNotes(func(context.Context, uint64) ([]event.Notification, error) {
			return []event.Notification{{}, {}, n}, nil
		}), ledger)
		for i := range out.members {
			c := &out.members[i]
			if i > 0 && c.pos.Compare(out.members[i-1].pos) <= 0 || c.pos.Seq != 7 || c.pos.Note != 2 {
				t.Fatalf("%+v is at place %d", c.pos, i)
			}
			if c.unusable == nil {
				checkBody(t, b, c, form[byName], now)
			}
		}
	})
}

func checkBody(t *testing.T, b *Builder, c *candidate, form uint32, now time.Time) {
	since := c.changedAt(5 * time.Minute)
	if since.After(now) || now.Sub(since) > 5*time.Minute {
		t.Fatalf("late by %s when it came in", now.Sub(since))
	}
	r := &event.Record{ID: "id", Key: c.identity(), Status: c.status, Pos: c.pos, Facts: event.Facts{Form: form, Since: since}}
	first, err := b.Body(t.Context(), r, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if second, err := b.Body(t.Context(), r, now); err != nil || !bytes.Equal(first, second) {
		t.Fatalf("other bytes the second time, %v", err)
	}
	if late, err := b.Body(t.Context(), r, now.Add(time.Hour)); err != nil || !bytes.Contains(late, []byte(`"delayed_by":"1h`)) {
		t.Fatalf("an hour late: %s, %v", late, err)
	}
	var m map[string]json.RawMessage // names differ by case here
	var alerts []json.RawMessage
	if err = json.Unmarshal(first, &m); err == nil {
		err = json.Unmarshal(m["alerts"], &alerts)
	}
	if err != nil || string(m["status"]) != strconv.Quote(string(c.status)) || string(m["incident_key"]) != strconv.Quote(r.Key) ||
		string(m["event_id"]) != `"id"` || len(m["title"]) < 3 || len(m["description"]) < 3 || len(alerts) != 1 {
		t.Fatalf("%v: %s", err, first)
	}
	if c.alert.Fingerprint != "" && !bytes.Equal(alerts[0], c.alert.Raw) {
		t.Fatalf("the alert was changed: %s, %s", c.alert.Raw, alerts[0])
	}
}

// FuzzReplayedHistory: whatever was posted in an honest history of three alerts, some of
// its requests sent again afterwards, in any order, close no incident of an alert that fires.
func FuzzReplayedHistory(f *testing.F) {
	f.Add([]byte{0, 0, 0}, []byte{1})                   // fires, recovers, fires anew; the recovery again
	f.Add([]byte{0, 1, 2, 0, 1, 0}, []byte{3, 3, 1, 0}) // three, mixed
	f.Add([]byte{0, 0, 0, 0, 0}, []byte{3, 1, 0, 2})
	f.Fuzz(func(t *testing.T, history, again []byte) {
		if len(history) > 12 || len(again) > 12 || len(history) == 0 {
			t.Skip("longer ones say nothing more")
		}
		r := newStage(t, SplitConfig{})
		var sent [][]member
		began := map[byte]time.Time{} // of the alerts that fire
		now := t0
		for _, b := range history {
			now = now.Add(10 * time.Minute)
			which := b % 3
			name := string('a' + rune(which))
			a := firing(name, now)
			if start, fires := began[which]; fires {
				a = resolved(name, start, now)
				delete(began, which)
			} else {
				began[which] = now
			}
			sent = append(sent, []member{a})
			r.post(now, 0, a)
		}
		r.decide()
		for _, b := range again {
			now = now.Add(time.Minute)
			r.post(now, 0, sent[int(b)%len(sent)]...)
		}
		r.decide()
		if err := r.ledger.View(func(tx *store.Tx) {
			for which := range began {
				if !isOpen(tx.Episode(event.Key("pmm", string('a'+rune(which))))) {
					t.Errorf("alert %c fires, and what was sent again closed it", 'a'+which)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	})
}
