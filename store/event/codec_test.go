package event

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func full() *Event {
	at := time.Date(2025, 11, 26, 9, 12, 0, 123456789, time.UTC)
	return &Event{
		ID: "62aa110960031c02cbcd", Key: "pmm-18e04dbe104bb755", Lane: "pmm\x00MySQL Down", Source: "pmm",
		Status: Firing, Pos: Position{1 << 40, 3, 4}, At: Position{1 << 40, 3, 5},
		Alertname: "MySQL Down", Fingerprint: "18e04dbe104bb755",
		Labels:      map[string]string{"alertname": "MySQL Down", "": "no name", "é\x01": "<&>\u2028"},
		Annotations: map[string]string{"summary": "down"},
		Episode:     "2025-11-26T09:12:00Z", StartsAt: at, Since: at, ReceivedAt: at.Add(time.Second), QueuedAt: at.Add(time.Hour),
		Firing: Position{9, 1 << 31, 8}, Settled: Suppressed, Reason: "others fire", Again: "replay",
		Body: []byte("{\"a\":1}\n\x00\xff"),
	}
}

func TestEventSurvivesTheStream(t *testing.T) {
	for name, e := range map[string]*Event{
		"everything set":   full(),
		"nothing set":      {},
		"only a body":      {Body: []byte("{}")},
		"a body of 1 MiB":  {ID: "x", Body: bytes.Repeat([]byte("x"), 1<<20)},
		"a head of 1 MiB":  {ID: "x", Reason: strings.Repeat("y", 1<<20), Body: []byte("b")},
		"an empty message": {ID: "x", Labels: map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			b := e.Encode(nil)
			got, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Body) == 0 && len(got.Body) == 0 {
				got.Body = e.Body
			}
			if !reflect.DeepEqual(got, e) {
				t.Errorf("got  %+v\nwant %+v", got, e)
			}
			if again := got.Encode(nil); !bytes.Equal(again, b) {
				t.Error("encoding it again gives other bytes")
			}
			brief, err := DecodeBrief(b)
			if err != nil {
				t.Fatal(err)
			}
			got.Labels, got.Annotations, got.Body = nil, nil, append(brief.Body[:0:0], got.Body...)
			if !reflect.DeepEqual(brief, got) {
				t.Errorf("in brief %+v\nwant %+v", brief, got)
			}
		})
	}
}

// A message as version 1 writes it. It stands in data directories: it must
// decode for ever, whatever later versions write.
const version1 = "\x01\xc5\x03" + `{"id":"62aa110960031c02cbcd","key":"pmm-18e04dbe104bb755","lane":"pmm-18e04dbe104bb755","source":"pmm","status":"firing",` +
	`"pos":{"seq":7,"note":1,"item":2},"at":{"seq":7,"note":1,"item":3},"alertname":"MySQL Down","fingerprint":"18e04dbe104bb755",` +
	`"labels":{"alertname":"MySQL Down"},"episode":"2025-11-26T09:12:00Z","starts_at":"2025-11-26T09:12:00Z",` +
	`"since":"2025-11-26T09:12:00Z","received_at":"2025-11-26T09:12:05Z","queued_at":"2025-11-26T09:12:05Z"}` + `{"status":"firing"}`

func TestVersion1IsReadableForEver(t *testing.T) {
	e, err := Decode([]byte(version1))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2025, 11, 26, 9, 12, 0, 0, time.UTC)
	want := &Event{
		ID: "62aa110960031c02cbcd", Key: "pmm-18e04dbe104bb755", Lane: "pmm-18e04dbe104bb755", Source: "pmm", Status: Firing,
		Pos: Position{7, 1, 2}, At: Position{7, 1, 3}, Alertname: "MySQL Down", Fingerprint: "18e04dbe104bb755",
		Labels: map[string]string{"alertname": "MySQL Down"}, Episode: "2025-11-26T09:12:00Z", StartsAt: start, Since: start,
		ReceivedAt: start.Add(5 * time.Second), QueuedAt: start.Add(5 * time.Second), Body: []byte(`{"status":"firing"}`),
	}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
	again, err := Decode(e.Encode(nil))
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("as version 2 it is %+v, %v", again, err)
	}
}

// A message as version 2 wrote it first. See above.
const version2 = "02ec0000000062aa110960031c02cbcd03706d6d010018e04dbe104bb755000e706d6d004d7953514c20446f776e0180808080802003048080808080200305098080808008080a4d7953514c20446f776e103138653034646265313034626237353514323032352d31312d32365430393a31323a30305a969aef3ac091b6920d969aef3ac091b6920d969aef3ac291b6920d969aef3ae0c9b6920d0a737570707265737365640b6f74686572732066697265067265706c61790400076e6f206e616d6509616c6572746e616d650a4d7953514c20446f776e03c3a901063c263ee280a8020773756d6d61727904646f776e7b2261223a317d0a00ff"

func TestVersion2IsReadableForEver(t *testing.T) {
	b, err := hex.DecodeString(version2) // with the body behind it
	if err != nil {
		t.Fatal(err)
	}
	if e, err := Decode(b); err != nil || !reflect.DeepEqual(e, full()) {
		t.Errorf("got  %+v, %v\nwant %+v\nwritten today: %x", e, err, full(), full().Encode(nil))
	}
}

func TestNewerVersionIsRefusedByName(t *testing.T) {
	for _, v := range []byte{3, 127, 255} {
		b := full().Encode(nil)
		b[0] = v
		if _, err := Decode(b); !errors.Is(err, ErrNewer) {
			t.Errorf("version %d: %v, want ErrNewer", v, err)
		}
	}
}

func TestDamagedMessageIsAnError(t *testing.T) {
	good := full().Encode(nil)
	for n := range len(good) - len(full().Body) {
		if _, err := Decode(good[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes: no error", n, len(good))
		} else if errors.Is(err, ErrNewer) {
			t.Errorf("cut to %d bytes: called newer", n)
		}
	}
	for name, s := range map[string]string{
		"length without an end":       "\x01" + strings.Repeat("\x80", 12),
		"length beyond 64 bits":       "\x01" + strings.Repeat("\xff", 9) + "\x7f{}",
		"the largest length":          "\x01" + strings.Repeat("\xff", 9) + "\x01{}",
		"length one beyond the end":   "\x01\x03{}",
		"head is not JSON":            "\x01\x02[[",
		"head is of another type":     "\x01\x02[]",
		"head with a negative number": "\x01\x12" + `{"pos":{"seq":-1}}`,
		"time that is none":           "\x01\x0e" + `{"since":"no"}`,
		"shorter than the length":     "\x02\x00\x00\x00",
		"a head beyond the end":       "\x02\x01\x00\x00\x00",
		"no head":                     "\x02\x00\x00\x00\x00{}",
		"a head that goes on":         "\x02\x2b\x00\x00\x00" + strings.Repeat("\x00", 43),
	} {
		if e, err := Decode([]byte(s)); err == nil || errors.Is(err, ErrNewer) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

func TestATimeThatJSONCannotHoldIsKept(t *testing.T) {
	// 9999-12-31T23:59:59-01:00 is RFC 3339, and the year 10000 in UTC.
	e := full()
	e.StartsAt = time.Date(10000, 1, 1, 0, 59, 59, 0, time.UTC)
	if got, err := Decode(e.Encode(nil)); err != nil || !got.StartsAt.Equal(e.StartsAt) {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(version1))
	f.Add(full().Encode(nil))
	f.Add((&Event{}).Encode(nil))
	f.Add([]byte("\x01\x02{}"))
	f.Add([]byte("\x01\x04null"))
	f.Add([]byte("\x02\x02{}"))
	f.Add([]byte("\x03\x02{}"))
	f.Add([]byte("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		e, err := Decode(b)
		if !bytes.Equal(b, before) {
			t.Fatal("Decode changed its input")
		}
		if err != nil {
			if e != nil {
				t.Fatal("an event and an error")
			}
			return
		}
		e2, err := Decode(e.Encode(nil))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(e.Body, e2.Body) {
			t.Fatal("the body changed")
		}
		if one, two := e.appendHead(nil), e2.appendHead(nil); !bytes.Equal(one, two) {
			t.Fatalf("the head changed:\n%q\n%q", one, two)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e := full()
	e.Body = bytes.Repeat([]byte("x"), 2<<10)
	b.ReportAllocs()
	for b.Loop() {
		e.Encode(nil)
	}
}

func BenchmarkDecode(b *testing.B) {
	e := full()
	e.Body = bytes.Repeat([]byte("x"), 2<<10)
	data := e.Encode(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
