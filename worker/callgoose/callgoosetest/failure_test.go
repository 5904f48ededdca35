package callgoosetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// start serves a fake whose finished requests can be awaited.
func start(t *testing.T, cfg Config) (*Fake, *Server, chan Request) {
	t.Helper()
	finished := make(chan Request, 100)
	cfg.Observe = func(r Request) { finished <- r }
	f := New(cfg)
	s, err := f.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return f, s, finished
}

func post(ctx context.Context, url, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client.Do(req)
}

func parsed(mode string) Failure {
	f, err := ParseFailure(mode)
	if err != nil {
		panic(err)
	}
	return f
}

func TestFailuresOverHTTP(t *testing.T) {
	date := time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)
	status := func(code int, after string) Failure {
		return Failure{Mode: Status, Status: code, RetryAfter: after}
	}
	hook := func(r *Response) Failure {
		return Failure{Mode: Hook, Hook: func(r0 *http.Request, body []byte) *Response {
			again, _ := io.ReadAll(r0.Body)
			if string(again) != string(body) {
				return &Response{Status: 500}
			}
			return r
		}}
	}
	for name, c := range map[string]struct {
		failure  Failure
		leaves   bool  // the client leaves soon
		err      error // nil with code 0 = any
		code     int
		header   [2]string
		how      How
		accepted bool
		created  int
	}{
		"off":                             {failure: Failure{}, code: 201, how: Answered, accepted: true, created: 1},
		"a status":                        {failure: status(503, ""), code: 503, how: Answered},
		"a status with seconds":           {failure: status(429, "7"), code: 429, header: [2]string{"Retry-After", "7"}, how: Answered},
		"a status with a date":            {failure: status(503, date), code: 503, header: [2]string{"Retry-After", date}, how: Answered},
		"a redirect":                      {failure: status(302, ""), code: 302, header: [2]string{"Location", "/v1/process"}, how: Answered},
		"a 200 of some proxy":             {failure: parsed("200-html"), code: 200, header: [2]string{"Content-Type", "text/html"}, how: Answered, accepted: true},
		"a 200 that is text":              {failure: parsed("200-text"), code: 200, header: [2]string{"Content-Type", "text/plain"}, how: Answered, accepted: true},
		"a 200 that says error":           {failure: parsed("200-error"), code: 200, header: [2]string{"Content-Type", "application/json"}, how: Answered, accepted: true},
		"nginx' 400":                      {failure: parsed("400-html"), code: 400, header: [2]string{"Content-Type", "text/html"}, how: Answered},
		"hang until the client leaves":    {failure: Failure{Mode: Hang}, leaves: true, err: context.DeadlineExceeded, how: Cut},
		"reset":                           {failure: Failure{Mode: Reset}, err: syscall.ECONNRESET, how: Cut},
		"slow":                            {failure: Failure{Mode: Slow, Delay: time.Millisecond}, code: 201, how: Answered, accepted: true, created: 1},
		"slow, the client leaves":         {failure: Failure{Mode: Slow, Delay: time.Hour}, leaves: true, err: context.DeadlineExceeded, how: Lost, accepted: true, created: 1},
		"slow failure, the client leaves": {failure: Failure{Mode: Status, Status: 503, Delay: time.Hour}, leaves: true, err: context.DeadlineExceeded, how: Lost},
		"a lost reply":                    {failure: Failure{Mode: LoseReply}, err: io.EOF, how: Lost, accepted: true, created: 1},
		"a hook that answers":             {failure: hook(&Response{Status: 418, Header: http.Header{"X-Test": {"y"}}, Body: []byte("{}")}), code: 418, header: [2]string{"X-Test", "y"}, how: Answered},
		"a hook that does not":            {failure: hook(nil), code: 201, how: Answered, accepted: true, created: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, s, finished := start(t, Config{})
			f.FailNext(1, c.failure)
			ctx := t.Context()
			if c.leaves {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
			}
			resp, err := post(ctx, s.URL()+"?from=x", event("k", "a", "firing"))
			if err == nil {
				defer func() { _ = resp.Body.Close() }()
				if resp.StatusCode != c.code || resp.Header.Get(c.header[0]) != c.header[1] {
					t.Errorf("got %d %v", resp.StatusCode, resp.Header)
				}
			} else if c.err == nil || !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			if r := <-finished; r.How != c.how || r.Accepted() != c.accepted || len(f.Incidents()) != c.created {
				t.Errorf("recorded %+v, %d incidents", r, len(f.Incidents()))
			}
			again, err := post(t.Context(), s.URL(), event("k", "a", "firing"))
			if err != nil || again.StatusCode/100 != 2 {
				t.Errorf("afterwards: %v %v", again, err)
			}
			if r := f.Check([]Expect{{"k", "firing"}}); r.OK() != (c.how != Answered || !c.accepted) {
				t.Error(r)
			}
		})
	}
}

func TestAServerRefusesUntilReopened(t *testing.T) {
	f, s, _ := start(t, Config{})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := post(t.Context(), s.URL(), ""); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("closed: %v", err)
		}
		if err := errors.Join(s.Reopen(), s.Reopen()); err != nil {
			t.Fatal(err)
		}
		if _, err := post(t.Context(), s.URL(), ""); err != nil {
			t.Errorf("reopened: %v", err)
		}
	}
	if _, err := f.Start(s.Addr()); err == nil {
		t.Error("two servers on one port")
	}
}

func TestScripts(t *testing.T) {
	f, e := New(Config{SecondTrigger: SecondIncident}), event("k", "a", "firing")
	say := func(code int) Failure { return Failure{Mode: Status, Status: code} }
	f.Fail(say(500))
	f.FailNext(2, say(503))
	f.FailNext(1, Failure{Mode: Reset})
	f.FailNext(0, say(400))
	for _, answer := range []string{"503", "503", "read tcp 127.0.0.1:443: read: connection reset by peer", "500", "500"} {
		want(t, send(t, f, "", e), answer)
	}
	limited := say(429)
	limited.Count = 2
	f.Fail(limited)
	for _, answer := range []string{"429", "429", "201 created"} {
		want(t, send(t, f, "", e), answer)
	}
}

func TestExactlyTheMatchingEventsFail(t *testing.T) {
	f := New(Config{})
	post := func(key, id string) string {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://callgoose.test/process", strings.NewReader(event(key, id, "firing")))
		req.Header.Set("Content-Type", "application/json")
		resp, err := f.RoundTripper().RoundTrip(req)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Content-Type"), " ", strings.Fields(string(b))[0])
	}
	const created, none, refused, page = `201 application/json {"id":"`, `200 application/json {"id":"`, `403 application/json {"error":"as`, `413 text/html <html>`
	expect := func(key, id, answer string) {
		t.Helper()
		if got := post(key, id); !strings.HasPrefix(got, answer) {
			t.Errorf("%s %s: %s, want %s", key, id, got, answer)
		}
	}
	f.FailMatching(Match{Key: "k1"}, parsed("403"))
	f.FailMatching(Match{Text: `"event_id":"p"`}, parsed("413-html"))
	f.FailMatching(Match{Key: "k2", Text: `"event_id":"r"`}, Failure{Mode: Reset, Count: 2})
	expect("k1", "a", refused)
	expect("k1", "p", refused) // the one set first
	expect("k11", "a", created)
	expect("k2", "p", page)
	expect("k2", "a", created)
	expect("k3", "r", created)
	expect("k2", "r", "read tcp")
	f.Fail(parsed("503"))
	expect("k2", "r", "read tcp")
	expect("k2", "r", "503")
	f.FailMatching(Match{Key: "k2"}, Failure{Mode: Off})
	expect("k2", "r", none) // passes while others fail
	expect("k1", "a", refused)
	expect("k4", "a", "503")
	f.FailMatching(Match{Key: "k1"}, Failure{})
	expect("k1", "a", "503")
	f.Reset()
	expect("k2", "p", created)
}

func TestRequestsOfOneKeyUnderWayAtOnceAreNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{})
		f.Fail(Failure{Mode: Slow, Delay: time.Minute})
		done := make(chan bool)
		do := func(key, id string, timeout time.Duration) {
			go func() {
				client := http.Client{Transport: f.RoundTripper(), Timeout: timeout}
				resp, err := client.Post("https://callgoose.test/process", "application/json", strings.NewReader(event(key, id, "firing")))
				if err == nil {
					_ = resp.Body.Close()
				}
				done <- err == nil
			}()
		}
		do("a", "first", time.Hour)
		do("b", "of another key", time.Hour)
		time.Sleep(time.Second)
		do("a", "second", time.Hour)
		do("c", "given up", time.Second)
		time.Sleep(2 * time.Second)
		do("c", "after it", time.Hour)
		for range 5 {
			<-done
		}
		do("a", "third", time.Hour)
		<-done
		overlapped := map[string]bool{}
		for id, e := range f.events {
			if e.requests != 1 || e.accepted != 1 || e.changed {
				t.Errorf("%+v", e)
			}
			overlapped[id] = e.overlapped
		}
		if len(overlapped) != 6 {
			t.Errorf("%v", overlapped)
		}
		for id, is := range overlapped {
			if is != (id == "first") {
				t.Errorf("%s: overlapped %v", id, is)
			}
		}
		if o := f.Check(nil).Findings[Overlapped]; len(o) != 1 || o[0].EventID != "first" {
			t.Errorf("%v", o)
		}
	})
}

func TestInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, begin := New(Config{}), time.Now()
		client := http.Client{Transport: f.RoundTripper(), Timeout: time.Hour}
		do := func(id string) error {
			resp, err := client.Post("https://callgoose.test/v1/process", "application/json", strings.NewReader(event("k", id, "firing")))
			if err == nil {
				_ = resp.Body.Close()
			}
			return err
		}
		f.Fail(Failure{Mode: Hang})
		var timeout interface{ Timeout() bool }
		if err := do("hangs"); !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(begin) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		done := make(chan error)
		go func() { done <- do("released") }()
		synctest.Wait()
		f.FailNext(1, Failure{Mode: Status, Status: 503}) // does not release it
		synctest.Wait()
		if how := f.Received()[1].How; how != Cut {
			t.Errorf("still hanging, but %s", how)
		}
		f.Fail(Failure{})
		if err := <-done; err != nil || len(f.Open()) != 1 {
			t.Errorf("released: %v", err)
		}
		f.Fail(Failure{Mode: Slow, Delay: 59 * time.Minute})
		if err := do("slow"); err != nil || time.Since(begin) != 119*time.Minute {
			t.Errorf("slow: %v after %v", err, time.Since(begin))
		}
		go func() { done <- do("twice at once") }()
		if err := errors.Join(do("twice at once"), <-done); err != nil {
			t.Error(err)
		}
		if o := f.Check(nil).Findings[Overlapped]; len(o) != 1 || o[0].EventID != "twice at once" {
			t.Errorf("overlapped: %v", o)
		}
		if d := f.Check(nil).Findings[Doubled]; len(d) != 1 || d[0].EventID != "twice at once" {
			t.Errorf("doubled: %v", d)
		}
		f.Fail(Failure{Mode: LoseReply})
		if err := do("lost"); !errors.Is(err, syscall.ECONNRESET) || f.Received()[5].How != Lost {
			t.Errorf("lost: %v", err)
		}
		client.Transport.(*Transport).Refuse(true)
		if err := do("refused"); !errors.Is(err, syscall.ECONNREFUSED) || len(f.Received()) != 6 {
			t.Errorf("refused: %v", err)
		}
		client.Transport.(*Transport).Refuse(false)
		f.Reset()
		if err := do("again"); err != nil || f.Stats() != (Stats{1, 1, 1, 1}) {
			t.Errorf("after reset: %v %+v", err, f.Stats())
		}
	})
}

func TestControl(t *testing.T) {
	_, s, _ := start(t, Config{KeepBodies: true})
	base := "http://" + s.Addr() + "/_fake/"
	get := func(path string, v any) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
			t.Fatal(err)
		}
	}
	do := func(url, body string, code int) (text string) {
		t.Helper()
		resp, err := post(t.Context(), url, body)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != code {
			t.Errorf("%s %s: %d %s", url, body, resp.StatusCode, b)
		}
		return resp.Header.Get("Retry-After") + string(b)
	}
	do(base+"fail", `{"mode":"429","retry_after":"7","count":1}`, 200)
	do(base+"fail", `{"mode":"503","delay":"1ms","next":true}`, 200)
	if got := do(s.URL(), event("k", "a", "firing"), 429); !strings.HasPrefix(got, "7{") {
		t.Errorf("no Retry-After: %s", got)
	}
	do(s.URL(), event("k", "a", "firing"), 503)
	do(s.URL(), event("k", "a", "firing"), 201)
	do(base+"fail", `{"mode":"400-html","key":"k"}`, 200)
	if got := do(s.URL(), event("k", "b", "firing"), 400); !strings.HasPrefix(got, "<html>") {
		t.Errorf("no page: %s", got)
	}
	do(base+"fail", `{"mode":"200-text","text":"\"b\""}`, 200)
	do(base+"fail", `{"key":"k"}`, 200)
	if got := do(s.URL(), event("k", "b", "firing"), 200); got != "status 200" {
		t.Errorf("answer %q", got)
	}
	do(base+"fail", `{"text":"\"b\""}`, 200)
	for _, bad := range []string{`{"mode":"explode"}`, `{"mode":"400-tiff"}`, `{"mode":"slow-html"}`, `{"mode":"hook"}`, `{"mode":"99"}`, `{"mode":"slow","delay":"x"}`, `{"modus":"slow"}`, ``} {
		do(base+"fail", bad, 400)
	}
	do(base+"nothing", "", 404)
	var received []Request
	var incidents []Incident
	var stats Stats
	get("received", &received)
	get("incidents?open=1", &incidents)
	get("stats", &stats)
	if len(received) != 5 || string(received[0].Body) != event("k", "a", "firing") || len(incidents) != 1 || stats != (Stats{5, 2, 2, 1}) {
		t.Errorf("%+v\n%+v\n%+v", received, incidents, stats)
	}
	do(base+"reset", "", 200)
	if get("received", &received); len(received) != 0 {
		t.Errorf("after reset: %+v", received)
	}
}
