package worker

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
	"pmm-callgoose/testdata/webhook"
	"pmm-callgoose/worker/callgoose"
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
	f.Fuzz(func(t *testing.T, body []byte, byName bool) {
		members, _, err := pmm.Check(body)
		n := &event.Notification{Source: "pmm", ReceivedAt: now, Body: body, Alerts: members}
		out, _ := split(n, 7, 2)
		if err != nil { // kept whole, as what cannot be used
			if len(out) != 1 || out[0].unusable == nil || out[0].unusable.Reason == "" || !bytes.Equal(out[0].unusable.Raw, body) {
				t.Fatalf("refused (%v), and split into %+v", err, out)
			}
			return
		}
		s := &Splitter{cfg: SplitConfig{From: "PerconaPMM", ByAlertname: byName}}
		last, sent := event.Position{}, 0
		for i := range out {
			c := &out[i]
			if c.pos.Compare(last) <= 0 || c.pos.Seq != 7 || c.pos.Note != 2 {
				t.Fatalf("%+v comes after %+v", c.pos, last)
			}
			last = c.pos
			if !c.pos.Made() {
				sent++
			}
			if c.unusable != nil {
				continue
			}
			if c.pos.Made() && c.status != event.Resolved {
				t.Fatalf("we made an alert that is %s", c.status)
			}
			if since := c.changedAt(5 * time.Minute); since.After(now) || now.Sub(since) > 5*time.Minute {
				t.Fatalf("late by %s when it came in", now.Sub(since))
			}
			key, fingerprint := c.identity()
			e := &event.Event{ID: "id", Key: key, Source: "pmm", Status: c.status, Alertname: c.alert.Labels["alertname"], Fingerprint: fingerprint}
			s.finish(e, c)
			first := e.Body
			if s.finish(e, c); !bytes.Equal(first, e.Body) {
				t.Fatal("other bytes the second time")
			}
			var m map[string]json.RawMessage // names differ by case here
			var alerts []json.RawMessage
			err := json.Unmarshal(e.Body, &m)
			if err == nil {
				err = json.Unmarshal(m["alerts"], &alerts)
			}
			if err != nil || string(m["status"]) != strconv.Quote(string(c.status)) || string(m["incident_key"]) != strconv.Quote(key) || string(m["event_id"]) != `"id"` ||
				len(m["title"]) < 3 || len(m["description"]) < 3 || len(alerts) != 1 {
				t.Fatalf("%v: %s", err, e.Body)
			}
			if c.alert.Fingerprint != "" && !bytes.Equal(alerts[0], c.alert.Raw) {
				t.Fatalf("the alert was changed: %s, %s", c.alert.Raw, alerts[0])
			}
			if _, err := callgoose.Late(e.Body, time.Hour); err != nil {
				t.Fatal(err)
			}
			if again, err := event.Decode(e.Encode(nil)); err != nil || !bytes.Equal(again.Body, e.Body) || again.Key != key {
				t.Fatalf("stored and read again: %+v, %v", again, err)
			}
		}
		if sent != members {
			t.Fatalf("%d of %d members came out", sent, members)
		}
	})
}
