package store

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

// anything is a value of every kind that stands in the ledger, chosen by r.
func anything(r *rand.Rand) (*event.Record, *Episode, *Waiting) {
	text := func() string { return []string{"", "a", "MySQL Down", "\xff\x00", "Größe"}[r.IntN(5)] }
	when := func() time.Time {
		return []time.Time{{}, at, at.Add(time.Duration(r.Int64())), time.Date(1601, 2, 3, 4, 5, 6, 7, time.UTC)}[r.IntN(4)]
	}
	place := func() event.Position {
		return []event.Position{{}, {Seq: r.Uint64(), Note: r.Uint32(), Item: r.Uint32()}, {Seq: 7}}[r.IntN(3)]
	}
	times := func() (list []time.Time) {
		for range r.IntN(3) {
			list = append(list, when())
		}
		return list
	}
	pos := event.Position{Seq: r.Uint64() >> 1, Note: 3}
	rec := &event.Record{
		ID: []string{"62aa110960031c02cbcd", pos.RecordID('s'), pos.RecordID('u'), "e1"}[r.IntN(4)], Pos: pos, Notification: pos.NotificationID(),
		Source: "pmm", Key: []string{"pmm-18e04dbe104bb755", "pmm-%unusable", "other"}[r.IntN(3)],
		Status: statusCodes[r.IntN(3)], Outcome: outcomeCodes[r.IntN(len(outcomeCodes))], Reason: text(), LastError: text(), CallgooseID: text(),
		Alertname: text(), Labels: map[string]string{"alertname": text()}, ReceivedAt: at, StartsAt: when(), SettledAt: when(), ClaimedAt: when(),
		At: place(), Firing: place(), Tries: r.IntN(300),
	}
	if rec.IsEvent() {
		rec.Facts = event.Facts{Form: r.Uint32(), Since: when(), Suffix: text(), Reopened: r.IntN(2) == 0, Reconciled: r.IntN(2) == 0}
		if rec.Facts.Adopted = r.IntN(2) == 0; rec.Facts.Adopted {
			rec.Facts.Annotations = map[string]string{"summary": text()}
		}
	}
	for range r.IntN(3) {
		rec.Attempts = append(rec.Attempts, event.Attempt{
			At: when(), Duration: time.Duration(r.IntN(1e9)), Status: r.IntN(600), Result: resultCodes[r.IntN(len(resultCodes))],
			Effect: []string{"created", "odd"}[r.IntN(2)], Error: text(), ID: text(), Sent: r.IntN(2) == 0, Probe: r.IntN(2) == 0,
		})
	}
	ep := &Episode{
		Key: rec.Key, Source: "pmm", Alertname: text(), Open: r.IntN(2) == 0, Count: r.Uint64(), ID: text(), StartsAt: when(), Seen: times(),
		NamedAt: when(), Firing: place(), FiringAt: when(), Recovery: place(), RecoveredAt: when(), Shared: r.IntN(2) == 0,
		Shown: text(), Suffix: text(), Adopted: r.IntN(2) == 0, To: text(),
	}
	if r.IntN(2) == 0 {
		ep.ID = event.EpisodeID(ep.StartsAt, ep.Count)
	}
	for range r.IntN(3) {
		ep.Past = append(ep.Past, Span{Starts: times(), Ended: when()})
	}
	w := &Waiting{At: pos, Pos: []event.Position{pos, place()}[r.IntN(2)], ReceivedAt: when()}
	ep.ByName = r.IntN(3) == 1
	*w = Waiting{
		At: pos, Pos: w.Pos, ReceivedAt: w.ReceivedAt, Status: statusCodes[r.IntN(3)],
		Key: rec.Key, Source: "pmm", Alertname: text(), QueuedAt: when(), ClaimedAt: when(), NotBefore: when(),
	}
	return rec, ep, w
}

func TestWhatStandsInTheLedgerReadsBackAsItWas(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		rec, ep, w := anything(r)
		if w.Size = r.IntN(2) * r.IntN(1<<30); rec.IsEvent() {
			rec.Facts.Size = w.Size
		}
		if got, err := readRecord(rec.Pos, appendRecord(nil, rec, false)); err != nil || !reflect.DeepEqual(got, rec) {
			t.Fatalf("record %+v\ncame back as %+v, %v", rec, got, err)
		}
		if got, err := readEpisode(ep.Key, appendEpisode(nil, ep)); err != nil || !reflect.DeepEqual(got, ep) {
			t.Fatalf("episode %+v\ncame back as %+v, %v", ep, got, err)
		}
		if got, err := readWaiting(w.At, appendWaiting(nil, w)); err != nil || !reflect.DeepEqual(&got, w) {
			t.Fatalf("queue entry %+v\ncame back as %+v, %v", w, got, err)
		}
	}
}

func TestKeysOfPlacesSortByArrival(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	part := func() uint32 { return []uint32{0, 1, 255, 256, math.MaxUint32, r.Uint32()}[r.IntN(6)] }
	place := func() event.Position {
		return event.Position{Seq: uint64(part()) << (32 * r.IntN(2)), Note: part(), Item: part()}
	}
	for range 3000 {
		a, b := place(), place()
		if got := bytes.Compare(placeKey(a), placeKey(b)); got != a.Compare(b) {
			t.Errorf("the keys of %v and %v compare as %d", a, b, got)
		}
		if got := positionOf(placeKey(a)); got != a {
			t.Errorf("%v came back as %v", a, got)
		}
		if got := positionOf(placeKey(a)[1:]); got != (event.Position{}) {
			t.Errorf("a part of a key is %v", got)
		}
	}
	golden := []byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10")
	if got := placeKey(event.Position{Seq: 0x0102030405060708, Note: 0x090a0b0c, Item: 0x0d0e0f10}); !bytes.Equal(got, golden) {
		t.Errorf("key % x, want % x", got, golden)
	}
}

// Format 1 is the first that anybody has. A change of these bytes is a migration.
func TestTheBytesOfFormat1Stay(t *testing.T) {
	rec, ep, w := anything(rand.New(rand.NewPCG(5, 6)))
	for name, c := range map[string]struct{ got, want string }{
		"record":      {hex.EncodeToString(appendRecord(nil, rec, false)), goldenRecord},
		"episode":     {hex.EncodeToString(appendEpisode(nil, ep)), goldenEpisode},
		"queue entry": {hex.EncodeToString(appendWaiting(nil, w)), goldenWaiting},
	} {
		if c.got != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, c.got, c.want)
		}
	}
}

const (
	goldenRecord  = "01020118ead209919ba8000203706d6d010a25756e757361626c656bd7c3c5dcbfdfcbd6b60197a7f5c109da868b17d595fd86090b089bd8a6de56020773756d6d617279074772c3b6c39f6501619591f3daa0adb6afb101d6baedaa0cddbbe0c601074772c3b6c39f650209616c6572746e616d650a4d7953514c20446f776edaedf167a0c6b8f01f0002ff000a4d7953514c20446f776eea0101a0add1d6019ec8f0eb298ab5d4e203cc0500ff036f64640a4d7953514c20446f776e0161"
	goldenEpisode = "010203706d6d00aed5b6b8939693b9a401089bd8a6de5600089bd8a6de560188cda6b00d000201089bd8a6de560000008785f98ab5e7f0e2ff01dffbbee50dd3abef8b0200000001610a4d7953514c20446f776e00"
	goldenWaiting = "0100010183c892af80a8b0d78d01ac87b2dc07ddfbaca00c03706d6d010a25756e757361626c6500089bd8a6de5600bad5aa8901aeebe08027c0cfa09b02949a84d52d"
)

func FuzzDecoders(f *testing.F) {
	rec, ep, w := anything(rand.New(rand.NewPCG(5, 6)))
	f.Add(appendRecord(nil, rec, false))
	f.Add(appendEpisode(nil, ep))
	f.Add(appendWaiting(nil, w))
	f.Fuzz(func(_ *testing.T, b []byte) { // no panic, no endless loop
		_, _ = readRecord(event.Position{Seq: 1}, b)
		_, _ = readEpisode("pmm-a", b)
		_, _ = readWaiting(event.Position{Seq: 1}, b)
	})
}
