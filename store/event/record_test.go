package event

import (
	"bytes"
	"encoding/hex"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"
)

func fullRecord() *Record {
	at := time.Date(2025, 11, 26, 9, 12, 0, 123456789, time.UTC)
	pos := Position{1 << 40, 3, 4}
	return &Record{
		ID: "62aa110960031c02cbcd", Key: "pmm-18e04dbe104bb755", Source: "pmm", Status: Resolved, Alertname: "MySQL Down",
		Labels:   map[string]string{"alertname": "MySQL Down", "": "no name"},
		StartsAt: at, ReceivedAt: at.Add(time.Second), Pos: pos, Notification: pos.NotificationID(),
		Outcome: Delivered, Reason: "replay", Tries: 30, LastError: "503", SettledAt: at.Add(time.Hour), CallgooseID: "INC-1",
		Attempts: []Attempt{
			{At: at, Duration: time.Second, Status: 503, Result: "retry", Error: "503", Sent: true, Probe: true},
			{At: at.Add(time.Minute), Duration: -1, Status: -5, Result: "a later word", Effect: "another", ID: "INC-1"},
		},
		Seq: math.MaxUint64, Frozen: true, DelayedBy: "6m0s", Firing: Position{7, math.MaxUint32, 2}, Over: true,
	}
}

func TestARecordSurvivesTheLedger(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"everything set":           func(*Record) {},
		"nothing set":              func(r *Record) { *r = Record{Pos: r.Pos, Notification: r.Notification, Outcome: Queued} },
		"suppressed":               func(r *Record) { r.ID, r.Outcome = r.Pos.SuppressedID(), Suppressed },
		"unusable":                 func(r *Record) { r.ID, r.Outcome, r.Labels, r.Alertname = r.Pos.UnusableID(), Dead, nil, "" },
		"another id":               func(r *Record) { r.ID = "62AA110960031c02cbcd" },
		"another status":           func(r *Record) { r.Status = "pending" },
		"a key without its source": func(r *Record) { r.Key = "x" },
		"a long fingerprint":       func(r *Record) { r.Key = "pmm-18e04dbe104bb75518e04dbe104bb755" },
		"no fingerprint":           func(r *Record) { r.Key = "pmm-" },
		"empty labels":             func(r *Record) { r.Labels = map[string]string{} },
		"the year 10000":           func(r *Record) { r.StartsAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"before 1970":              func(r *Record) { r.StartsAt = time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC) },
	} {
		t.Run(name, func(t *testing.T) {
			r := fullRecord()
			change(r)
			b := r.Append(nil, false)
			got, err := DecodeRecord(r.Pos, b)
			if err != nil || !reflect.DeepEqual(got, r) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, r)
			}
			if o, err := RecordOutcome(b); err != nil || o != r.Outcome {
				t.Errorf("its outcome is %q, %v", o, err)
			}
			brief, err := DecodeRecord(r.Pos, r.Append(nil, true))
			r.Labels, r.Alertname, r.Brief = nil, "", true
			if err != nil || !reflect.DeepEqual(brief, r) {
				t.Errorf("in brief %+v, %v\nwant %+v", brief, err, r)
			}
		})
	}
}

// As version 1 wrote them first. They stand in ledgers: they must decode for ever.
const (
	goldenRecord  = "010102187b838d1baa57150062aa110960031c02cbcd03706d6d010018e04dbe104bb7557fffffffffffffffffff0107ffffffff0f020a4d7953514c20446f776e0300076e6f206e616d6509616c6572746e616d650a4d7953514c20446f776e969aef3ac091b6920d969aef3ae0c9b6920d067265706c61790335303305494e432d3104366d30731e03969aef3ac091b6920d80a8d6b907ee070400033530330000969aef3ab892b6920d0109ff0c61206c6174657220776f7264ff07616e6f746865720005494e432d31"
	goldenEpisode = "010d03706d6d0a4d7953514c20446f776e0301c091b6920d0101c291b6920d0201a0d9b5920d01c890b6920d07010201c291b6920d"
	format2Record = `{"id":"62aa110960031c02cbcd","incident_key":"pmm-18e04dbe104bb755","source":"pmm","status":"firing","alertname":"MySQL Down",` +
		`"labels":{"alertname":"MySQL Down"},"received_at":"2025-11-26T09:12:05Z","notification":"n7.1","outcome":"dead","attempts":2,"last_error":"x","callgoose_id":""}`
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatStandsInLedgersIsReadableForEver(t *testing.T) {
	r := fullRecord()
	if got, err := DecodeRecord(r.Pos, unhex(t, goldenRecord)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v\nwritten today: %x", got, err, r.Append(nil, false))
	}
	ep := fullEpisode()
	if got, err := DecodeEpisode(ep.Key, unhex(t, goldenEpisode)); err != nil || !reflect.DeepEqual(got, ep) {
		t.Errorf("got %+v, %v\nwritten today: %x", got, err, ep.Append(nil))
	}
	old, err := DecodeRecord(Position{7, 1, 2}, []byte(format2Record))
	if err != nil || old.ID != r.ID || old.Outcome != Dead || old.Tries != 2 || old.Brief || old.Labels["alertname"] != "MySQL Down" || old.Pos.Seq != 7 {
		t.Errorf("of format 2: %+v, %v", old, err)
	}
	if o, err := RecordOutcome([]byte(format2Record)); err != nil || o != Dead {
		t.Errorf("of format 2: %s, %v", o, err)
	}
}

func fullEpisode() *Episode {
	at := time.Date(2025, 11, 26, 9, 12, 0, 0, time.UTC)
	return &Episode{
		Key: "pmm-18e04dbe104bb755", Source: "pmm", Alertname: "MySQL Down", Fingerprint: "18e04dbe104bb755", Open: true,
		ID: EpisodeID(at, 3), Count: 3, StartsAt: at, Seen: []time.Time{at.Add(time.Second)}, Past: []time.Time{at.Add(-time.Hour), at.Add(-time.Minute)},
		Firing: Position{7, 1, 2}, FiringAt: at.Add(time.Second),
	}
}

func TestAnEpisodeSurvivesTheLedger(t *testing.T) {
	for name, change := range map[string]func(*Episode){
		"everything set":     func(*Episode) {},
		"closed":             func(ep *Episode) { ep.Open, ep.Adopted = false, true },
		"counted":            func(ep *Episode) { ep.StartsAt, ep.ID = time.Time{}, "#3" },
		"an id of its own":   func(ep *Episode) { ep.ID = "x" },
		"another key":        func(ep *Episode) { ep.Key = "x" },
		"another print":      func(ep *Episode) { ep.Fingerprint = "x" },
		"nothing but a key":  func(ep *Episode) { *ep = Episode{Key: "pmm-x"} },
		"nothing at all":     func(ep *Episode) { *ep = Episode{} },
		"the year 10000":     func(ep *Episode) { ep.StartsAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"key shorter than s": func(ep *Episode) { ep.Key, ep.Source = "p", "pmm" },
	} {
		t.Run(name, func(t *testing.T) {
			ep := fullEpisode()
			change(ep)
			b := ep.Append(nil)
			if got, err := DecodeEpisode(ep.Key, b); err != nil || !reflect.DeepEqual(got, ep) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, ep)
			}
			if EpisodeOpen(b) != ep.Open {
				t.Error("EpisodeOpen says otherwise")
			}
		})
	}
}

// Whatever stands in a ledger: never a panic, and what is read is written as it was.
func FuzzRecord(f *testing.F) {
	r := fullRecord()
	f.Add(r.Append(nil, false))
	f.Add(r.Append(nil, true))
	f.Add(fullEpisode().Append(nil))
	f.Add([]byte(format2Record))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := DecodeRecord(r.Pos, b); err == nil && len(b) > 0 && b[0] == recordVersion {
			again := got.Append(nil, got.Brief)
			if twice, err := DecodeRecord(r.Pos, again); err != nil || !bytes.Equal(twice.Append(nil, twice.Brief), again) {
				t.Errorf("%x became %x, %v", b, again, err)
			}
			f := &Filter{Outcomes: []Outcome{got.Outcome}, Status: got.Status, IDs: []string{got.ID}, Incident: got.Key}
			if s := NewSieve(f); f.Match(got) && !s.Lets(again) {
				t.Errorf("%+v is left out by its own filter", got)
			}
		}
		if ep, err := DecodeEpisode("pmm-18e04dbe104bb755", b); err == nil && len(b) > 0 && b[0] == recordVersion {
			again := ep.Append(nil)
			if twice, err := DecodeEpisode(ep.Key, again); err != nil || !bytes.Equal(twice.Append(nil), again) {
				t.Errorf("%x became %x, %v", b, again, err)
			}
		}
	})
}

func TestTheSieveLetsThroughAnIDThatIsKeptAsText(t *testing.T) {
	r := fullRecord()
	r.ID = "62AA110960031C02CBCD"
	if !NewSieve(&Filter{IDs: []string{r.ID}}).Lets(r.Append(nil, false)) {
		t.Error("a record is left out by its own id")
	}
}

func TestTheSieveLetsThroughAnyKey(t *testing.T) {
	for _, source := range []string{"pmm", "pmm-eu-west-1", "production-site-1", ""} {
		for _, fingerprint := range []string{"18e04dbe104bb755", "18E04DBE104BB755", "abc", "a-b", "sixteen-letters-", "no hexadecimal digits", "", "-"} {
			r := fullRecord()
			r.Source, r.Key = source, Key(source, fingerprint)
			for _, r.Brief = range []bool{false, true} {
				if !NewSieve(&Filter{Incident: r.Key}).Lets(r.Append(nil, r.Brief)) {
					t.Errorf("a record of %q is left out by its own key", r.Key)
				}
			}
		}
	}
	r := fullRecord()
	if NewSieve(&Filter{Incident: "pmm-08e04dbe104bb755"}).Lets(r.Append(nil, false)) {
		t.Errorf("a record of %q passes for another", r.Key)
	}
}

func TestCodesAreNeverChanged(t *testing.T) {
	if !slices.Equal(outcomeCodes, []Outcome{"queued", "delivered", "discarded", "dead", "suppressed", "collapsed"}) ||
		!slices.Equal(statusCodes, []Status{"", "firing", "resolved"}) ||
		!slices.Equal(resultCodes, []string{"", "delivered", "discarded", "dead", "retry", "held", "outage", "interrupted"}) ||
		!slices.Equal(effectCodes, []string{"", "created", "resolved", "duplicate", "none"}) {
		t.Error("ledgers hold these by their place: append, and then change this test")
	}
}
