package faulttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// alertmanager runs the real one, without gossip, sending to url.
func alertmanager(t *testing.T, url string) (api string) {
	t.Helper()
	program, err := exec.LookPath("prometheus-alertmanager")
	if err != nil {
		if program, err = exec.LookPath("alertmanager"); err != nil {
			t.Skip("no alertmanager here: apt-get install prometheus-alertmanager")
		}
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
route: {receiver: callgoose, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}
receivers:
- name: callgoose
  webhook_configs: [{url: %q, send_resolved: true}]
`, url), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // it cannot tell us a port of its own choice
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	var log bytes.Buffer
	cmd := exec.Command(program, "--config.file", config, "--storage.path", dir,
		"--web.listen-address", addr, "--cluster.listen-address=")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("alertmanager:\n%s", &log)
		}
	})
	api = "http://" + addr
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(api + "/-/ready"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return api
			}
		}
	}
	t.Fatal("alertmanager did not become ready")
	return ""
}

// The sender is the real thing: it groups, batches and reports recoveries in
// groups that still fire.
func TestRealAlertmanagerEveryAlertArrivesOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	api := alertmanager(t, *r.url.Load()+"/am")
	var b book
	started := map[int]time.Time{} // by key, of the episode that is open
	push := func(ms ...mark) {
		t.Helper()
		var alerts []map[string]any
		for _, m := range ms {
			a := map[string]any{
				"labels":       map[string]string{"alertname": fmt.Sprintf("Rule %d", m.key%3), "severity": "critical", "instance": fmt.Sprintf("db-%03d", m.key)},
				"annotations":  map[string]string{"summary": m.String()},
				"generatorURL": "http://pmm.example/graph",
			}
			now := time.Now().UTC()
			if m.n%2 == 0 {
				started[m.key] = now
			} else {
				a["endsAt"] = now
			}
			a["startsAt"] = started[m.key]
			alerts = append(alerts, a)
		}
		body, err := json.Marshal(alerts)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(api+"/api/v2/alerts", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
			t.Fatalf("alertmanager answered %d: %s", resp.StatusCode, answer)
		}
		b.add(ms)
		r.settle(&b)
	}
	all := func(n, from, to int) (ms []mark) {
		for k := from; k < to; k++ {
			ms = append(ms, mark{k, n})
		}
		return ms
	}
	push(all(0, 0, 12)...)
	push(append(all(1, 0, 6), all(0, 12, 15)...)...) // mixed: half recovers, others begin
	push(append(all(1, 6, 15), all(2, 0, 3)...)...)  // the rest recovers, three fire again
	push(all(3, 0, 3)...)
	r.stop()
	if again := r.account(&b); again > 0 {
		t.Errorf("%d arrived again", again)
	}
	if n := len(r.fake.Incidents()); n != 18 {
		t.Errorf("%d incidents were opened, not 18", n)
	}
}
