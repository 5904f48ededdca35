package faulttest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// call is one line of strace: a system call that began, or one that ended.
var (
	callBegan   = regexp.MustCompile(`^(\d+) +[0-9:.]+ (\w+)\((.*)$`)
	callResumed = regexp.MustCompile(`^(\d+) +[0-9:.]+ <\.\.\. (\w+) resumed>(.*)$`)
	firstPath   = regexp.MustCompile(`^\d+<([^>]*)>`)
	returnedOK  = regexp.MustCompile(`\) += \d+`)
)

// A 202 is written after the block that holds the notification was synced, and
// never before: read from the system calls of the process itself. strace handles
// a thread's stops one by one, so the order of its lines is the order of causes.
func TestBlockIsSyncedBeforeThe202IsWritten(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace here: apt-get install strace")
	}
	if out, err := exec.Command(strace, "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
	r := newRig(t)
	trace := filepath.Join(r.dir, "trace")
	// -D: the program stays our child, and dies when it is killed.
	r.before = []string{
		strace, "-D", "-f", "-tt", "-y", "-s", "8192", "-o", trace,
		"-e", "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync,openat",
	}
	r.start()
	var marks []string
	for i := range 8 {
		// No part of it occurs elsewhere, so that no compression hides it.
		marks = append(marks, fmt.Sprintf("%016x", rand.Uint64()))
		resp, err := http.Post(*r.url.Load(), "application/json", strings.NewReader(fmt.Sprintf(
			`{"alerts":[{"status":"firing","labels":{"alertname":"Sync","instance":"db-%d"},"annotations":{"summary":%q}}]}`, i, marks[i])))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Fatalf("answered %d", resp.StatusCode)
		}
	}
	r.stop()
	var text []byte
	for end := time.Now().Add(patience); !bytes.Contains(text, []byte("+++ exited with")) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		text, _ = os.ReadFile(trace)
	}

	type pending struct{ path, args string }
	var (
		open     = map[string]pending{} // by thread: the call that is not finished
		written  = map[string]string{}  // by mark: the block it was written to, not yet synced
		durable  = map[string]bool{}    // by mark
		syncing  = map[string][]string{}
		sync     = map[string]bool{} // blocks opened with O_SYNC
		answered int
		syncs    int
	)
	ended := func(thread, name string, p pending) {
		block := strings.Contains(p.path, "/NOTIFICATIONS/") && strings.HasSuffix(p.path, ".blk")
		switch name {
		case "openat":
			if strings.Contains(p.args, "O_SYNC") || strings.Contains(p.args, "O_DSYNC") {
				if m := regexp.MustCompile(`"([^"]*)"`).FindStringSubmatch(p.args); m != nil {
					sync[m[1]] = true
				}
			}
		case "fsync", "fdatasync":
			if block {
				syncs++
			}
			for _, mark := range syncing[thread] {
				durable[mark] = true
			}
			delete(syncing, thread)
		case "write", "pwrite64", "writev", "pwritev":
			if !block {
				return
			}
			for _, mark := range marks {
				if strings.Contains(p.args, mark) {
					written[mark] = p.path
					durable[mark] = sync[p.path]
				}
			}
		}
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := callResumed.FindStringSubmatch(line); m != nil {
			p, ok := open[m[1]]
			delete(open, m[1])
			if ok && returnedOK.MatchString(m[3]) {
				ended(m[1], m[2], p)
			}
			continue
		}
		m := callBegan.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, name, p := m[1], m[2], pending{args: m[3]}
		if fd := firstPath.FindStringSubmatch(m[3]); fd != nil {
			p.path = fd[1]
		}
		if strings.Contains(p.args, `"HTTP/1.1 202 Accepted`) {
			if answered < len(marks) && !durable[marks[answered]] {
				t.Errorf("webhook %d (%s): 202 was written before its block was synced; written to %q", answered, marks[answered], written[marks[answered]])
			}
			answered++
		}
		if name == "fsync" || name == "fdatasync" { // it covers what was written before it began
			for mark, path := range written {
				if path == p.path && !durable[mark] {
					syncing[thread] = append(syncing[thread], mark)
				}
			}
		}
		if strings.HasSuffix(line, "<unfinished ...>") {
			open[thread] = p
		} else if returnedOK.MatchString(m[3]) {
			ended(thread, name, p)
		}
	}
	if answered != len(marks) || len(written) != len(marks) {
		t.Errorf("the trace shows %d of %d answers and %d blocks written", answered, len(marks), len(written))
	}
	if t.Failed() {
		t.Logf("the end of the trace:\n%s", text[max(0, len(text)-4000):])
		return
	}
	t.Logf("%d webhooks: %d syncs of the block, each before its 202", len(marks), syncs)
}
