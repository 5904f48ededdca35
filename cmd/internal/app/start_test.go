package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// postAside posts while r may not answer yet.
func (r *rig) postAside() <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() { answer <- r.post(webhook(r.t, "grafana-firing-group-5.json")) }()
	synctest.Wait()
	return answer
}

// PMM does not try again for minutes: what comes before the store is open waits,
// and is answered as soon as it can be, well or not.
func TestAWebhookWaitsForTheStart(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		owner, cfg := *r, *r.cfg
		defer func() { *r = owner }()

		r.make()
		second := r.postAside()
		if err := r.app.Run(context.Background()); !errors.Is(err, store.ErrLocked) {
			t.Errorf("the second says %v", err)
		}
		if w := <-second; w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("it answered %d %v", w.Code, w.Header())
		}

		cfg.DataDir = t.TempDir()
		r.cfg = &cfg
		r.make()
		began := time.Now()
		late := <-r.postAside()
		if took := time.Since(began); late.Code != http.StatusServiceUnavailable || took > 9*time.Second {
			t.Errorf("nobody started it, and it answered %d after %s", late.Code, took)
		}
		stopped, stop := context.WithCancel(context.Background())
		stop()
		refused := r.postAside()
		if err := r.app.Run(stopped); err != nil {
			t.Errorf("stopped while it opens the store, it says %v", err)
		}
		if w := <-refused; w.Code != http.StatusServiceUnavailable {
			t.Errorf("it answered %d", w.Code)
		}

		r.make()
		waiting := r.postAside()
		select {
		case w := <-waiting:
			t.Fatalf("it answered %d before it was started", w.Code)
		default:
		}
		r.run()
		if w := <-waiting; w.Code != http.StatusAccepted {
			t.Errorf("it answered %d: %s", w.Code, w.Body)
		}
		if got := r.settle().Delivered; got != 5 {
			t.Errorf("%d of 5 alerts were delivered", got)
		}
		r.halt()
	})
}

// The port is open before the store is.
func TestThePortIsOpenFirst(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // a NATS server that does not answer
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	_ = free.Close()
	a, err := New(&config.Config{
		DataDir: t.TempDir(), Listen: addr, NATSURL: config.NewSecret("nats://" + silent.Addr().String()),
		CallgooseURL: "https://callgoose.test/", CallgooseToken: config.NewSecret(token), CallgooseAuth: "bearer", MaxBody: 10 << 20,
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for open := false; !open; {
		select {
		case err := <-done:
			t.Fatalf("it ended with %v, and its port was never open", err)
		case <-time.After(time.Millisecond):
			var c net.Conn
			if c, err = net.Dial("tcp", addr); err == nil {
				open = true
				_ = c.Close()
			}
		}
	}
	if a.core.Load() != nil {
		t.Error("the store is open without its server")
	}
	stop()
	if err := <-done; err != nil { // it waited for the server
		t.Error(err)
	}
}

// listening runs a service over the network, towards a fake, until stop is called.
func listening(t *testing.T, fake *callgoosetest.Fake) (a *App, hook string, stop context.CancelFunc, done <-chan error) {
	t.Helper()
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	a, err := New(&config.Config{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", CallgooseURL: "https://callgoose.test/", CallgooseToken: config.NewSecret(token), CallgooseAuth: "bearer",
		CallgooseFrom: "PerconaPMM", IncidentBy: "alert", Timeout: 15 * time.Second, RetryFor: time.Hour, Concurrency: 1, MaxBody: 1 << 20, MaxStore: 1 << 30,
	}, Options{NoSync: true, Transport: fake.RoundTripper(), Ready: func(a Addresses) { ready <- a }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	go func() { ended <- a.Run(ctx) }()
	select {
	case addrs := <-ready:
		return a, addrs.Webhooks, stop, ended
	case err := <-ended:
		t.Fatal(err)
		return nil, "", nil, nil
	}
}

// answer is what a service says to a webhook; 0 and the error when it says nothing.
func answer(t *testing.T, hook string) (code int, text, again string) {
	t.Helper()
	resp, err := http.Post(hook, "application/json", bytes.NewReader(webhook(t, "grafana-firing-1.json")))
	if err != nil {
		return 0, err.Error(), ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error(), ""
	}
	return resp.StatusCode, string(b), resp.Header.Get("Retry-After")
}

// A stop takes as long as what is being sent. Until its end a webhook is told to come
// again, in place of a connection that nobody accepts.
func TestThePortIsOpenUntilTheEnd(t *testing.T) {
	t.Parallel()
	fake := callgoosetest.New(callgoosetest.Config{})
	fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Hang})
	a, hook, stop, done := listening(t, fake)
	if code, text, _ := answer(t, hook); code != http.StatusAccepted {
		t.Fatalf("a webhook was answered %d: %s", code, text)
	}
	for a.core.Load().deliver().View().InFlight == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	code, text, again := answer(t, hook)
	for code == http.StatusAccepted { // it has not noticed yet
		code, text, again = answer(t, hook)
	}
	if code != http.StatusServiceUnavailable || again == "" {
		t.Errorf("a webhook was answered %d: %s, Retry-After %q", code, text, again)
	}
	select {
	case err := <-done:
		t.Errorf("it ended before what was being sent: %v", err)
	default:
	}
	if code, text, _ := answer(t, hook); code != http.StatusServiceUnavailable {
		t.Errorf("the next webhook was answered %d: %s", code, text)
	}
	fake.Fail(callgoosetest.Failure{})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A webhook that came before a stop is stored, although its body takes its time.
func TestAStopFinishesWhatCameBefore(t *testing.T) {
	t.Parallel()
	_, hook, stop, done := listening(t, callgoosetest.New(callgoosetest.Config{}))
	body := webhook(t, "grafana-firing-1.json")
	addr := strings.TrimSuffix(strings.TrimPrefix(hook, "http://"), "/v1/webhook")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	read := func(what string, want int) {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%s: %+v, %v", what, resp, err)
		}
	}
	_, _ = fmt.Fprintf(conn, "POST /v1/webhook HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", addr, len(body))
	read("the head", http.StatusContinue) // now it reads the body
	stop()
	for refused := 0; refused < 20; {
		switch code, text, _ := answer(t, hook); code {
		case http.StatusAccepted: // it has not noticed yet
		case http.StatusServiceUnavailable:
			refused++
		default:
			t.Fatalf("a webhook was answered %d: %s", code, text)
		}
	}
	if _, err := conn.Write(body); err != nil {
		t.Fatal(err)
	}
	read("the body", http.StatusAccepted)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Of several that start at the same moment one gets the directory.
func TestOfManyStartsOneGetsTheDirectory(t *testing.T) {
	t.Parallel()
	const starters = 4
	dir := t.TempDir()
	for round := range 3 { // fresh, then not
		ready, done := make(chan Addresses, starters), make(chan error, starters)
		ctx, stop := context.WithCancel(context.Background())
		for range starters {
			a, err := New(&config.Config{
				DataDir: dir, Listen: "127.0.0.1:0", CallgooseURL: "https://callgoose.test/", CallgooseToken: config.NewSecret(token),
				CallgooseAuth: "bearer", MaxBody: 10 << 20, MaxStore: 1 << 30,
			}, Options{NoSync: true, Ready: func(a Addresses) { ready <- a }})
			if err != nil {
				t.Fatal(err)
			}
			go func() { done <- a.Run(ctx) }()
		}
		for range starters - 1 {
			if err := <-done; !errors.Is(err, store.ErrLocked) {
				t.Errorf("round %d: one that should not have it says %v", round, err)
			}
		}
		select {
		case <-ready:
		case err := <-done:
			t.Errorf("round %d: the last one, too: %v", round, err)
			done <- nil
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("round %d: it stopped with %v", round, err)
		}
		if len(ready) != 0 {
			t.Errorf("round %d: %d more were ready", round, len(ready))
		}
	}
}

// What a ledger's file holds is a view: without it nothing that waits is lost
// and no open episode is forgotten.
func TestTheLedgerIsRebuilt(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		r.settle()
		r.net.Refuse(true)
		r.accept(group(mysqlDown(1, "resolved", start), mysqlDown(3, "firing", start)))
		time.Sleep(time.Minute)
		r.halt()
		if err := os.Remove(filepath.Join(r.cfg.DataDir, store.FileName)); err != nil {
			t.Fatal(err)
		}
		r.start()
		time.Sleep(time.Second)
		if s := r.status(); s.Queued != 2 || s.Notifications != 2 || s.Alerts != 4 {
			t.Errorf("after the rebuild: %+v", s)
		}
		r.net.Refuse(false)
		r.settle()
		for range 2 { // whether Callgoose has 2 is not known: its first repeat goes out
			r.accept(group(mysqlDown(2, "firing", start), mysqlDown(3, "firing", start)))
			r.settle()
		}
		if s := r.status(); s.SuppressedReason["repeat"] != 3 || s.Unknown != 1 {
			t.Errorf("open episodes were forgotten: %+v", s)
		}
		for key, got := range r.statuses() {
			if len(got) > 2 || got[0] != "firing" {
				t.Errorf("%s got %v", key, got)
			}
		}
		if !strings.Contains(r.logs.String(), "the ledger is new") {
			t.Error("nobody was told what is gone")
		}
	})
}

// The clock was ahead until the machine was booted again: an alert that PMM renews then was
// not under way when its recovery came in.
func TestAnAlertThatIsRenewedAfterTheClockWasSetBackOpensItsIncident(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		began := time.Now()
		fires := group(mysqlDown(1, "firing", began))
		r.accept(fires)
		r.settle()
		ahead := time.Now().Add(30 * time.Second)
		if _, err := r.app.core.Load().queue.Publish(context.Background(), event.Notification{
			Source: "pmm", BeganAt: ahead, ReceivedAt: ahead, Body: group(mysqlDown(1, "resolved", began)), Alerts: 1,
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		r.settle()
		if len(r.fake.Open()) != 0 {
			t.Fatal("the recovery did not arrive")
		}
		r.restart()
		r.accept(fires)
		r.settle()
		if len(r.fake.Open()) != 1 {
			t.Errorf("no incident is open, and the alert is %q", r.events(event.Filter{})[0].Reason)
		}
	})
}

func TestOneDirectoryHasOneOwner(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		second, err := New(r.cfg, Options{NoListen: true, Transport: r.net})
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Run(context.Background()); !errors.Is(err, store.ErrLocked) {
			t.Errorf("the second says %v", err)
		}
	})
}

// A service that never got a webhook has nothing to remove, and looks for it anyway.
func TestNothingHappensToAnIdleService(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.Retention = time.Hour }, func(r *rig) {
		time.Sleep(3 * time.Hour)
		if log := r.logs.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
			t.Error("an idle service complains")
		}
		r.acceptFile("grafana-firing-1.json")
		if s := r.settle(); s.Delivered != 1 {
			t.Errorf("%+v", s)
		}
	})
}
