package faulttest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// run runs a command of the program, to die at a moment, "" = not. code is -1 when it was
// killed.
func (r *rig) run(moment string, args ...string) (code int, out string) {
	r.t.Helper()
	cmd := exec.Command(r.name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "CONFIGURATION_DIRECTORY=" + r.dir, "FAULTPOINT=" + moment}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		r.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), said.String()
}

// A move to NATS servers, and one back, are killed wherever something was made durable:
// what is not complete is not served, the next run completes it, and all that waited is
// delivered once.
func TestAMoveThatIsKilledIsNeitherServedNorLost(t *testing.T) {
	needFaultpoints(t)
	t.Parallel()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("NATS does not start")
	}
	r := newRig(t)
	r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: http.StatusServiceUnavailable})
	sent := 0
	post := func(n int) {
		r.start()
		for range n {
			body := fmt.Sprintf(`{"alerts":[{"status":"firing","labels":{"alertname":"Down","instance":"db-%d"},"startsAt":%q}]}`, sent, time.Now().Format(time.RFC3339))
			resp, err := http.Post(*r.url.Load(), "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				t.Fatalf("answered %d", resp.StatusCode)
			}
			sent++
		}
		r.stop()
	}
	old, made := r.data, filepath.Join(r.dir, "made")
	move := func(verb, dir, moment string) {
		code, out := r.run(moment, "cluster", verb, "--data-dir", dir, "--nats-url", srv.ClientURL(), "--nats-replicas", "1", "--takeover-after", "6s")
		if want := map[bool]int{true: -1}[moment != ""]; code != want {
			t.Fatalf("%s %s ended with %d: %s", verb, moment, code, out)
		}
	}
	refused := func(dir, why string) {
		code, out := r.run("", "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--admin-listen", "off",
			"--callgoose-url", r.server.URL(), "--callgoose-token-file", filepath.Join(r.dir, "token"))
		if code != 2 || !strings.Contains(out, why) {
			t.Errorf("serve on %s ended with %d: %s", filepath.Base(dir), code, out)
		}
	}
	post(40)
	move("adopt", old, "message-copied@7")
	post(5) // it may be served again meanwhile
	move("adopt", old, "message-copied@11")
	move("adopt", old, "snapshot-stored@1")
	move("adopt", old, "directory-marked@1")
	refused(old, "ADOPTED")
	move("adopt", old, "")
	refused(old, "ADOPTED")
	for _, moment := range []string{"message-copied@7", "log-left@1", "directory-complete@1"} {
		move("leave", made, moment)
		refused(made, "LEAVING")
	}
	move("leave", made, "")
	r.fake.Fail(callgoosetest.Failure{})
	r.data = made
	r.start()
	for end := time.Now().Add(patience); r.fake.Stats().Events < sent && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	r.stop()
	if s := r.fake.Stats(); s.Events != sent || s.Accepted != sent {
		t.Errorf("%d alerts waited, %d events came, %d were accepted", sent, s.Events, s.Accepted)
	}
}
