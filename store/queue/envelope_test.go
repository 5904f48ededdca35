package queue

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

var update = flag.Bool("update", false, "write the golden files")

// example is one of each thing that an envelope holds.
func example() []byte {
	at := time.Date(2026, 11, 27, 12, 0, 0, 123456789, time.UTC)
	mark := encodeMark(event.Mark{UpTo: event.Position{Seq: 9, Note: 1}, Waiting: []event.Position{{Seq: 4}, {Seq: 8, Note: 2, Item: 3}}})
	return new(encoder).encode(mark, []*publishing{
		{note: event.Notification{Source: "pmm", BeganAt: at, ReceivedAt: at.Add(time.Millisecond), Alerts: 2, Body: []byte(strings.Repeat(`{"alerts":[{}]}`, 5))}},
		{empty: true},
		{note: event.Notification{Source: "b", Origin: event.FromService, ReceivedAt: at, Body: []byte("x")}},
	})
}

// What was written once must be readable for ever: this changes with a new format
// number only.
func TestTheBytesOfAnEnvelopeStay(t *testing.T) {
	const golden = "testdata/envelope-1.hex"
	got := hex.Dump(example())
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("%v\n%s", err, got)
	}
}

// A flipped bit costs the notification or the mark it hit, and only the index
// costs all. It is never taken for what was stored.
func TestAFlippedBitIsNoticed(t *testing.T) {
	b := example()
	want, err := decode(b)
	if err != nil || len(want) != 2 || want[0].Err != nil || want[1].Err != nil {
		t.Fatal(want, err)
	}
	e, _ := open(b)
	index := len(b) - len(e.mark) - len(e.notes[0]) - len(e.notes[1])
	for i := 1; i < len(b); i++ {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			got, err := decode(bad)
			if i < index {
				if !errors.Is(err, event.ErrDamaged) {
					t.Fatalf("byte %d of the index: %v", i, err)
				}
				continue
			}
			damaged := 0
			for n := range want {
				if err != nil || got[n].Err == nil && !reflect.DeepEqual(got[n], want[n]) {
					t.Fatalf("byte %d: %+v, %v", i, got, err)
				}
				if got[n].Err != nil {
					damaged++
				}
			}
			if damaged > 1 || damaged == 0 && i >= index+len(e.mark) || !salvage(bad) {
				t.Fatalf("byte %d costs %d notifications", i, damaged)
			}
		}
	}
	b[0] = format + 1
	if _, err := decode(b); !errors.Is(err, event.ErrNewer) {
		t.Error(err)
	}
}

// Whatever stands in the stream: notifications or an error, never a panic, and
// never more memory than a message may need.
func FuzzEnvelope(f *testing.F) {
	f.Add(example())
	f.Add([]byte("\x01\xff\xff\xff\xff\x07"))
	f.Fuzz(func(t *testing.T, b []byte) {
		notes, err := decode(b)
		if err != nil {
			if !errors.Is(err, event.ErrDamaged) && !errors.Is(err, event.ErrNewer) {
				t.Fatal(err)
			}
			return
		}
		var batch []*publishing
		for _, n := range notes {
			if n.Err == nil {
				batch = append(batch, &publishing{note: n})
			}
		}
		again, err := decode(new(encoder).encode(encodeMark(event.Mark{}), batch))
		if err != nil || len(again) != len(batch) {
			t.Fatal(again, err)
		}
		for i := range again {
			if !reflect.DeepEqual(again[i], batch[i].note) {
				t.Fatalf("%+v became %+v", batch[i].note, again[i])
			}
		}
	})
}

// The same for the parts behind a right check sum.
func FuzzParts(f *testing.F) {
	f.Add([]byte("\x03pmm\x00\x00\x00\x01{}"))
	f.Add([]byte("\x01\x02\x03\x02\x01\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, plain []byte) {
		if m, err := decodeMark(appendPart(nil, placeMark, plain)); err == nil {
			for i := 1; i < len(m.Waiting); i++ {
				if m.Waiting[i].Compare(m.Waiting[i-1]) < 0 {
					return // no writer makes it
				}
			}
			if again, err := decodeMark(encodeMark(m)); err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("%+v became %+v, %v", m, again, err)
			}
		}
		if n := decodeNotification(appendPart(nil, placeNotes, plain), 0); n.Err == nil {
			if again := decodeNotification(appendPart(nil, placeNotes, appendNotification(nil, &n)), 0); !reflect.DeepEqual(again, n) {
				t.Fatalf("%+v became %+v", n, again)
			}
		}
	})
}
