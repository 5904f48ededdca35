package faulttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// chat is the other way out: it counts how often each alert was named, by instance.
type chat struct {
	mu    sync.Mutex
	named map[string]int // guarded by mu
}

func (c *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m struct{ Alerts []struct{ Short string } }
	if json.NewDecoder(r.Body).Decode(&m) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range m.Alerts {
		_, instance, _ := strings.Cut(a.Short, " on ")
		instance, _, _ = strings.Cut(instance, ",")
		c.named[instance]++
	}
}

func (c *chat) count(instance string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.named[instance]
}

func (r *rig) postCritical(instance string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"version":"1","alerts":[{"status":"firing","labels":{"alertname":"Disk","severity":"critical","instance":%q}}]}`, instance)
	resp, err := http.Post(*r.url.Load(), "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		r.t.Fatalf("answered %d", resp.StatusCode)
	}
}

// Wherever the process dies, nobody is told twice of an alert, and nobody who
// was not meant to be told is forgotten: all of it is still queued for Callgoose.
func TestKilledAtEveryStepOfTheOtherWayNobodyIsToldTwice(t *testing.T) {
	needFaultpoints(t)
	t.Parallel()
	for moment, want := range map[string]int{
		"fallback-chosen": 1, // nothing was written: the next life tells
		"fallback-noted":  0, // told or not: the next life cannot know, and Callgoose gets it
		"fallback-sent":   1,
	} {
		t.Run(moment, func(t *testing.T) {
			c := &chat{named: map[string]int{}}
			there := httptest.NewServer(c)
			defer there.Close()
			hook := filepath.Join(t.TempDir(), "hook")
			if err := os.WriteFile(hook, []byte(there.URL+"/some-secret-path\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, "--fallback-webhook-file", hook, "--fallback-after", "1ms")
			r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 503})
			r.env = []string{"FAULTPOINT=" + moment + "@1"}
			r.start()
			r.postCritical("first")
			r.awaitDeath()
			r.env = nil
			r.start()
			r.postCritical("second")
			for end := time.Now().Add(patience); c.count("second") == 0 && time.Now().Before(end); {
				time.Sleep(20 * time.Millisecond)
			}
			if first, second := c.count("first"), c.count("second"); first != want || second != 1 {
				t.Errorf("told %d times of the first alert, want %d; %d times of the second", first, want, second)
			}
			r.fake.Fail(callgoosetest.Failure{})
			r.until("delivered", func(s admin.Status) bool { return s.Delivered == 2 && s.Queued == 0 })
			r.stop()
		})
	}
}
