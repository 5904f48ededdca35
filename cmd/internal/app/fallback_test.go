package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

const outsideSecret = "outside-hook-secret-path"

// outside is the network towards others than Callgoose: it keeps what was sent.
type outside struct {
	mu     sync.Mutex // guards the rest
	calls  []call
	status int // of the answer, 0 = 200, -1 = no answer
}

type call struct {
	at     time.Time
	method string
	m      message
	taken  bool
}

func (o *outside) RoundTrip(r *http.Request) (*http.Response, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := call{at: time.Now(), method: r.Method, taken: o.status == 0}
	if r.Body != nil {
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &c.m)
	}
	o.calls = append(o.calls, c)
	if o.status < 0 {
		return nil, errors.New("no route to " + r.URL.String())
	}
	return &http.Response{StatusCode: max(o.status, 200), Body: io.NopCloser(strings.NewReader(r.URL.String())), Request: r}, nil
}

func (o *outside) answer(status int) { o.mu.Lock(); o.status = status; o.mu.Unlock() }

func (o *outside) take() (calls []call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	calls, o.calls = o.calls, nil
	return calls
}

// told are the incident keys of all alerts that were told, with how often.
func told(calls []call) map[string]int {
	n := map[string]int{}
	for _, c := range calls {
		for _, a := range c.m.Alerts {
			if c.taken {
				n[a.Key]++
			}
		}
	}
	return n
}

func otherWay(c *config.Config) {
	c.FallbackWebhook = config.NewSecret("https://chat.test/" + outsideSecret)
	c.FallbackAfter, c.FallbackMatch = 10*time.Minute, map[string]string{"severity": "critical"}
}

func (r *rig) callgooseIsDown() {
	r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 503})
}

func (r *rig) callgooseIsBack() { r.fake.Fail(callgoosetest.Failure{}) }

func (r *rig) noSecret(secret string) {
	r.t.Helper()
	s, _ := json.Marshal(r.status())
	if strings.Contains(string(s), secret) || strings.Contains(r.logs.String(), secret) {
		r.t.Errorf("the secret stands in the log or in the status: %s", s)
	}
}

func TestAlertsThatWaitForTenMinutesAreToldOnceByTheOtherWay(t *testing.T) {
	t.Parallel()
	bubble(t, otherWay, func(r *rig) {
		began := time.Now()
		firing := func(from, to int) (list []alert) {
			for n := from; n < to; n++ {
				list = append(list, mysqlDown(n, "firing", began))
			}
			return list
		}
		minor := mysqlDown(90, "firing", began)
		minor.Labels["severity"] = "warning"
		r.accept(group(firing(0, 1)...)) // Callgoose knows of this one
		r.settle()
		r.callgooseIsDown()
		r.accept(group(append(firing(1, 27), minor)...))
		time.Sleep(9 * time.Minute)
		r.accept(group(mysqlDown(1, "resolved", began))) // nobody needs to hear of it
		if calls := r.outside.take(); len(calls) > 0 {
			t.Fatalf("told too early: %+v", calls)
		}
		time.Sleep(5 * time.Minute)
		calls := r.outside.take()
		if len(calls) != 2 || len(calls[0].m.Alerts) != 20 || calls[0].m.More != 5 || len(calls[1].m.Alerts) != 5 || calls[1].m.More != 0 {
			t.Fatalf("told in %d messages: %+v", len(calls), calls)
		}
		if gap := calls[1].at.Sub(calls[0].at); gap < time.Minute || gap > 2*time.Minute {
			t.Errorf("the second message came %s after the first", gap)
		}
		for key, n := range told(calls) {
			if n != 1 {
				t.Errorf("%s was told %d times", key, n)
			}
		}
		if text := calls[0].m.Text; !strings.Contains(text, "Callgoose is down since") || !strings.Contains(text, "\n- MySQL down on mysql-02:3306, critical\n") || !strings.HasSuffix(text, "\nand 5 more") {
			t.Errorf("the text is %q", text)
		}
		r.accept(group(mysqlDown(2, "resolved", began), mysqlDown(3, "resolved", began)))
		time.Sleep(time.Hour)
		calls = r.outside.take()
		if len(calls) != 1 || len(calls[0].m.Alerts) != 0 || calls[0].m.Text != "Recovered: MySQL down on mysql-02:3306; MySQL down on mysql-03:3306" {
			t.Errorf("of the recoveries: %+v", calls)
		}
		r.callgooseIsBack()
		r.settle()
		if s := r.status(); s.Dead+s.Discarded > 0 || len(r.fake.Open()) != 25 {
			t.Errorf("what was told by the other way is no longer queued for Callgoose: %d open, %+v", len(r.fake.Open()), s)
		}
		if s := r.status().SLO; s.Events != 28 || s.InTime != 1 {
			t.Errorf("taken within a minute: %+v", s)
		}
		if s := r.status().Fallback; s.Told != 25 || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
		r.noSecret(outsideSecret)
	})
}

func TestAMessageThatFailsIsRepeatedAndOneThatWasTakenIsNot(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"an error": 500, "no answer": -1, "a redirect": 302} {
		t.Run(name, func(t *testing.T) {
			bubble(t, otherWay, func(r *rig) {
				r.callgooseIsDown()
				r.outside.answer(status)
				r.accept(group(mysqlDown(1, "firing", time.Now())))
				time.Sleep(13*time.Minute + 30*time.Second)
				if calls := r.outside.take(); len(calls) != 4 {
					t.Errorf("tried %d times: %+v", len(calls), calls)
				}
				if s := r.status().Fallback; s.LastError == "" || s.LastAt != nil {
					t.Errorf("status %+v", s)
				}
				r.outside.answer(0)
				time.Sleep(time.Hour)
				if calls := r.outside.take(); len(calls) != 1 || len(calls[0].m.Alerts) != 1 {
					t.Errorf("told %+v", calls)
				}
				// And so is a word of recovery.
				r.outside.answer(status)
				r.accept(group(mysqlDown(1, "resolved", time.Now())))
				time.Sleep(90 * time.Second)
				r.outside.answer(0)
				time.Sleep(time.Hour)
				calls := r.outside.take()
				if n := len(calls); n < 2 || !calls[n-1].taken || calls[n-2].taken || len(calls[n-1].m.Recovered) != 1 {
					t.Errorf("of the recovery: %+v", calls)
				}
				r.noSecret(outsideSecret)
			})
		})
	}
}

func TestARestartNeitherForgetsTheOutageNorRepeatsWhatWasTold(t *testing.T) {
	t.Parallel()
	bubble(t, otherWay, func(r *rig) {
		r.callgooseIsDown()
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		for range 5 { // no life is as long as --fallback-after
			time.Sleep(3 * time.Minute)
			r.restart()
		}
		time.Sleep(time.Minute)
		r.accept(group(mysqlDown(2, "firing", time.Now())))
		time.Sleep(2 * time.Minute)
		r.restart()
		time.Sleep(time.Hour)
		calls := r.outside.take()
		n := told(calls)
		if len(calls) != 2 || len(n) != 2 {
			t.Errorf("told %v in %d messages", n, len(calls))
		}
		for key, times := range n {
			if times != 1 {
				t.Errorf("%s was told %d times", key, times)
			}
		}
	})
}

// An outage that was noted by a clock that was ahead lasts as long as it is seen to last.
func TestAClockThatIsSetBackDelaysNoOtherWay(t *testing.T) {
	t.Parallel()
	bubble(t, otherWay, func(r *rig) {
		if err := r.app.core.Load().ledger.Do(context.Background(), func(tx *store.Tx) {
			tx.NoteOutage("down", time.Now().Add(24*time.Hour))
		}); err != nil {
			t.Fatal(err)
		}
		r.callgooseIsDown()
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(9 * time.Minute)
		if calls := r.outside.take(); len(calls) > 0 {
			t.Errorf("told too early: %+v", calls)
		}
		time.Sleep(2 * time.Minute)
		if calls := r.outside.take(); len(told(calls)) != 1 {
			t.Errorf("told after eleven minutes: %+v", calls)
		}
	})
}

func TestAnOutageThatIsOverIsForgotten(t *testing.T) {
	t.Parallel()
	bubble(t, otherWay, func(r *rig) {
		for n := range 10 { // now and then it is back between two looks only
			r.callgooseIsDown()
			r.accept(group(mysqlDown(n, "firing", time.Now())))
			time.Sleep(8*time.Minute + time.Duration(n)*1300*time.Millisecond)
			r.callgooseIsBack()
			r.settle()
		}
		if calls := r.outside.take(); len(calls) > 0 {
			t.Errorf("told of short outages: %+v", calls)
		}
	})
}

func TestANewEpisodeIsToldAgain(t *testing.T) {
	t.Parallel()
	bubble(t, otherWay, func(r *rig) {
		r.callgooseIsDown()
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(12 * time.Minute)
		r.accept(group(mysqlDown(1, "resolved", time.Now())))
		time.Sleep(5 * time.Minute)
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(5 * time.Minute)
		var got []string
		for _, c := range r.outside.take() {
			got = append(got, fmt.Sprintf("%d firing, %d recovered", len(c.m.Alerts), len(c.m.Recovered)))
		}
		if want := []string{"1 firing, 0 recovered", "0 firing, 1 recovered", "1 firing, 0 recovered"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestTheHeartbeatStopsWhenSomebodyShouldLook(t *testing.T) {
	t.Parallel()
	const secret = "ping-secret-uuid-path"
	bubble(t, func(c *config.Config) {
		c.PingURL, c.PingEvery, c.AlarmAfter = config.NewSecret("https://ping.test/"+secret), time.Minute, 5*time.Minute
		c.ExpectEvery.Every = time.Hour
	}, func(r *rig) {
		r.outside.take()
		during := func(what string, d time.Duration, least, most int) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Minute) {
				if !strings.Contains(what, "silent") {
					r.beat("pmm")
				}
			}
			calls := r.outside.take()
			if n := len(calls); n < least || n > most {
				t.Errorf("%s: %d heartbeats in %s, want %d to %d", what, n, d, least, most)
			}
			for _, c := range calls {
				if c.method != http.MethodGet {
					t.Errorf("%s: called with %s", what, c.method)
				}
			}
		}
		during("all is well", 10*time.Minute, 9, 11)
		r.callgooseIsDown()
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		during("Callgoose is down", 30*time.Minute, 4, 7)
		if s := r.status().Ping; !strings.Contains(s.Withheld, "Callgoose has been down") {
			t.Errorf("status %+v", s)
		}
		r.callgooseIsBack()
		during("Callgoose is back", 10*time.Minute, 5, 11)
		during("pmm is silent", 2*time.Hour, 55, 65)
		during("it is heard again", 10*time.Minute, 8, 11)
		r.outside.answer(-1)
		during("the heartbeat service is away", 10*time.Minute, 9, 11)
		if n := strings.Count(r.logs.String(), "the heartbeat was not taken"); n < 8 || n > 11 {
			t.Errorf("logged %d times in ten minutes", n)
		}
		r.noSecret(secret)
	})
}
