package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm"
)

func TestBodiesAreWhatPMMSends(t *testing.T) {
	b := NewBodies(5, 5500, 12)
	if b.Keys() != 15 {
		t.Errorf("%d keys", b.Keys())
	}
	if n := b.Size(); n < 5400 || n > 5600 {
		t.Errorf("%d bytes", n)
	}
	seen := map[string]int{}
	for n := range 6 {
		got, err := pmm.Decode(b.Body(nil, n))
		if err != nil || len(got.Alerts) != 5 || len(got.Unusable) != 0 {
			t.Fatal(got, err)
		}
		for _, a := range got.Alerts {
			seen[a.Fingerprint]++
			if a.Firing != (n < 3) || a.EndsAt.IsZero() != a.Firing || time.Since(a.StartsAt) > time.Minute {
				t.Errorf("body %d: %+v", n, a)
			}
		}
	}
	for f, n := range seen {
		if n != 2 || !strings.HasPrefix(f, prefix) || len(f) != 16 {
			t.Errorf("%s came %d times", f, n)
		}
	}
	if len(seen) != 15 {
		t.Errorf("%d fingerprints", len(seen))
	}
}

func TestOpenListsWhatStillFires(t *testing.T) {
	b := NewBodies(1, 0, 3)
	for next, want := range []int{0, 1, 2, 3, 2, 1, 0, 1} {
		if b.next = next; len(b.open()) != want {
			t.Errorf("after %d bodies %d groups fire, not %d", next, len(b.open()), want)
		}
	}
	b.closed()
	if len(b.open()) != 0 || b.next%6 != 0 {
		t.Errorf("closed goes on at %d", b.next)
	}
}

func TestLatency(t *testing.T) {
	var list []time.Duration
	for n := 100; n > 0; n-- {
		list = append(list, time.Duration(n)*time.Millisecond)
	}
	if got, want := Percentiles(list), (Latency{50, 90, 99, 100}); got != want {
		t.Errorf("%+v", got)
	}
	if Percentiles(nil) != (Latency{}) {
		t.Error("nothing was measured")
	}
}

func TestLoadCountsAndResolves(t *testing.T) {
	state := make(map[string]bool) // guarded by the channel below
	lock := make(chan struct{}, 1)
	refuse := 3
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, r.ContentLength)
		for n := 0; n < len(buf); {
			m, err := r.Body.Read(buf[n:])
			if n += m; err != nil {
				break
			}
		}
		got, err := pmm.Decode(buf)
		lock <- struct{}{}
		defer func() { <-lock }()
		if err != nil || r.Header.Get("X-Test") != "yes" || refuse > 0 {
			refuse--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		for _, a := range got.Alerts {
			state[a.Fingerprint] = a.Firing
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer srv.Close()
	l := &Load{
		Target: Target{URL: srv.URL, Header: http.Header{"X-Test": {"yes"}}},
		Bodies: NewBodies(2, 500, 40), Connections: 4, Count: 27,
	}
	m, err := l.Run(t.Context())
	if err != nil || m.Webhooks != 24 || m.Alerts != 48 || m.Refused["503"] != 3 || m.PerSecond <= 0 || m.Latency.Max < m.Latency.P50 {
		t.Fatalf("%+v %v", m, err)
	}
	if err := l.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	for f, firing := range state {
		if firing {
			t.Errorf("%s still fires", f)
		}
	}
	l.Target.Header = nil
	if _, err := l.Run(t.Context()); err == nil {
		t.Error("twenty consecutive refusals are no error")
	}
	l.Connections = 40
	if _, err := l.Run(t.Context()); err == nil {
		t.Error("a recovery may overtake its firing")
	}
}

func TestConnIsKeptAndMadeAnew(t *testing.T) {
	var conns, posts atomic.Int64
	hang := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch n := posts.Add(1); {
		case string(body) != fmt.Sprintf("body %d", n) || r.Header.Get("X-Test") != "yes" || r.Header.Get(pmm.SignatureHeader) == "":
			w.WriteHeader(http.StatusBadRequest)
		case n == 2:
			w.Header().Set("Connection", "close")
		case n == 4:
			<-hang
		}
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.StartTLS()
	defer srv.Close()
	defer close(hang)
	c, err := NewConn(&Target{
		URL: srv.URL + "/v1/webhook", Header: http.Header{"X-Test": {"yes"}}, HMACSecret: "s",
		TLS: srv.Client().Transport.(*http.Transport).TLSClientConfig,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for n := range 3 {
		if code, err := c.Post(ctx, fmt.Appendf(nil, "body %d", n+1)); err != nil || code != http.StatusOK {
			t.Errorf("webhook %d: %d, %v", n+1, code, err)
		}
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	time.AfterFunc(10*time.Millisecond, stop)
	if code, err := c.Post(ctx, []byte("body 4")); err == nil {
		t.Errorf("it was stopped and yet answered %d", code)
	}
	if _, err := NewConn(&Target{URL: "http://["}); err == nil {
		t.Error("a URL that is none was accepted")
	}
}
