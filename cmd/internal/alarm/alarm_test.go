package alarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

// outage is a status with one event that waits for ever.
func outage(context.Context) (admin.Status, error) {
	s := healthy()
	s.Callgoose.State, s.Queued, s.OldestQueuedAt = event.Down, 1, &epoch
	return concluded(s), nil
}

// service is a status that a test changes.
type service struct {
	mu sync.Mutex
	s  admin.Status
}

func (s *service) status(context.Context) (admin.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return concluded(s.s), nil
}

func (s *service) change(f func(time.Time, *admin.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(time.Now(), &s.s)
}

// diary keeps what a target was sent, and when.
type diary struct {
	start time.Time
	lines []string // owned by the worker until it has ended
	each  func(n Notice) error
}

func (d *diary) send(_ context.Context, body []byte, _ ...string) error {
	var n Notice
	if err := json.Unmarshal(body, &n); err != nil {
		return err
	}
	d.lines = append(d.lines, brief(time.Since(d.start).Truncate(time.Second), n))
	if d.each != nil {
		return d.each(n)
	}
	return nil
}

// day runs an alarm with one target in a bubble, while story changes the service.
func day(t *testing.T, each func(Notice) error, story func(s *service)) (got []string) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{s: healthy()}
		a := New(Config{Command: "x", Status: s.status, Host: "h", Version: "v"})
		d := &diary{start: time.Now(), each: each}
		a.ways = []Way{{"diary", d.send}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { a.Run(ctx) })
		synctest.Wait() // from here on a change is seen one second later
		story(s)
		cancel()
		wg.Wait()
		got = d.lines
	})
	return got
}

func TestRunTellsOfAnOutage(t *testing.T) {
	got := day(t, nil, func(s *service) {
		time.Sleep(time.Minute + time.Millisecond)
		s.change(callgooseIs(event.Down, 4))
		time.Sleep(90 * time.Minute)
		s.change(callgooseIs(event.Up, 4))
		time.Sleep(time.Hour)
	})
	want := []string{"6m1s away 1 300", "1h6m1s away 2 3900", "1h32m1s away over 5400"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestATargetThatFailsIsTriedThreeTimesAndSoonAgain(t *testing.T) {
	tries := 0
	got := day(t, func(Notice) error {
		time.Sleep(100 * time.Millisecond)
		if tries++; tries <= 4 {
			return errors.New("no")
		}
		return nil
	}, func(s *service) {
		time.Sleep(time.Millisecond)
		s.change(callgooseIs(event.Down, 4))
		time.Sleep(30 * time.Minute)
	})
	// 1s and 5s between the tries; nobody heard, so again after five minutes.
	want := []string{
		"5m1s away 1 300", "5m2s away 1 300", "5m7s away 1 300",
		"10m8s away 2 607", "10m9s away 2 607",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestASlowTargetDoesNotStopTheWatchAndHearsTheNewestState(t *testing.T) {
	first := true
	got := day(t, func(Notice) error {
		if first {
			first = false
			time.Sleep(12*time.Minute + 30*time.Second)
		}
		return nil
	}, func(s *service) {
		time.Sleep(time.Millisecond)
		s.change(deadAre(1))
		time.Sleep(2 * time.Minute)
		s.change(deadAre(3)) // told in the same notice as the next
		time.Sleep(2 * time.Minute)
		s.change(deadAre(8))
		s.change(callgooseIs(event.Down, 4)) // raised, and over before anybody could hear of it
		time.Sleep(6 * time.Minute)
		s.change(callgooseIs(event.Up, 4))
		time.Sleep(time.Hour)
	})
	want := []string{"1s dead_letters 1 0", "12m31s dead_letters 3 240", "12m31s away over 360"}
	if len(got) < 3 || !slices.Equal(got[:3], want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestOfEachAlarmTheNewestNoticeIsSent(t *testing.T) {
	var pending []Notice
	for _, n := range []Notice{{Alarm: "x", Count: 1}, {Alarm: "y"}, {Alarm: "x", Count: 2}} {
		pending = replace(pending, n)
	}
	if !slices.Equal(pending, []Notice{{Alarm: "x", Count: 2}, {Alarm: "y"}}) {
		t.Errorf("got %+v", pending)
	}
}

func TestNobodyToTell(t *testing.T) {
	a := New(Config{Webhook: func() string { return "" }})
	if a != nil {
		t.Fatal("an Alarm with nobody to tell")
	}
	a.Run(t.Context()) // returns at once
}

// Both targets, as they really are; the webhook takes it at the third try.
func TestRunForReal(t *testing.T) {
	var tries atomic.Int32
	told := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		close(told)
	}))
	defer srv.Close()
	var log bytes.Buffer
	a := New(Config{
		Command: "cat >/dev/null; exit 7", Webhook: func() string { return srv.URL + "/" + secret }, Status: outage,
		After: time.Nanosecond, Every: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	a.pauses = []time.Duration{time.Millisecond, time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { a.Run(ctx) })
	<-told
	cancel()
	wg.Wait()
	if tries.Load() != 3 {
		t.Errorf("tried %d times", tries.Load())
	}
	text := log.String()
	if strings.Contains(text, secret) || !strings.Contains(text, "502 Bad Gateway") || !strings.Contains(text, "alarm=callgoose_away") {
		t.Error(text)
	}
}

func TestStatusThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a := New(Config{
			Command: "x", Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Status: func(context.Context) (admin.Status, error) { return admin.Status{}, fmt.Errorf("gone") },
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		a.Run(ctx)
		if n := strings.Count(log.String(), "gone"); n != 1 {
			t.Errorf("logged %d times: %s", n, log.String())
		}
	})
}
