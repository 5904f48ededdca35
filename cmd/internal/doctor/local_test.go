package doctor

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/ingest"
)

func TestSecretFiles(t *testing.T) {
	for mode, want := range map[os.FileMode]Severity{0o600: OK, 0o400: OK, 0o640: Warn, 0o644: Warn, 0o620: Warn, 0o602: Warn} {
		c := settings(t, nowhere(nil))
		path := filepath.Join(filepath.Dir(c.DataDir), "token")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		r := examine(t, Config{Settings: c})
		demand(t, r, "secrets", want)
		if want == Warn {
			demand(t, r, "secrets", Warn, "callgoose-token", "chmod", path, strconv.FormatUint(uint64(mode), 8))
		}
	}
	c := settings(t, nowhere(nil))
	if err := os.Remove(filepath.Join(filepath.Dir(c.DataDir), "token")); err != nil {
		t.Fatal(err)
	}
	demand(t, examine(t, Config{Settings: c}), "secrets", Fail, "callgoose-token", "no such file")
}

// A pod's secrets are root's and readable for its group; its volume may be root's too.
func TestSecretFilesOfAPod(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	c := settings(t, nowhere(nil))
	path := filepath.Join(filepath.Dir(c.DataDir), "token")
	for mode, want := range map[os.FileMode]Severity{0o440: OK, 0o444: Warn} {
		if err := errors.Join(os.Chown(c.DataDir, 54321, 54322), os.Chown(path, 0, 54322), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		demand(t, examine(t, Config{Settings: c}), "secrets", want)
	}
	if err := errors.Join(os.Chown(path, 0, 54323), os.Chmod(path, 0o440)); err != nil {
		t.Fatal(err)
	}
	demand(t, examine(t, Config{Settings: c}), "secrets", Warn, "may read")
}

// nowhere adds an address where nobody listens: what is tested here is local.
func nowhere(flags map[string]string) map[string]string {
	all := map[string]string{"callgoose-url": "http://127.0.0.1:1/v1/process"}
	maps.Copy(all, flags)
	return all
}

func TestDataDir(t *testing.T) {
	c := settings(t, nowhere(nil))
	r := examine(t, Config{Settings: c})
	demand(t, r, "data directory", OK, "0700")
	if times, err := timeSync(c.DataDir, 3); err != nil || len(times) != 3 {
		t.Errorf("three syncs took %v, %v", times, err)
	}
	if left, err := os.ReadDir(c.DataDir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.Chmod(c.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	demand(t, examine(t, Config{Settings: c}), "data directory", Warn, "chmod 700 "+c.DataDir)
	if err := os.Remove(c.DataDir); err != nil {
		t.Fatal(err)
	}
	r = examine(t, Config{Settings: c})
	demand(t, r, "data directory", Warn, "is not there")
	demand(t, r, "disk space", OK)
	demand(t, r, "fsync", Skip)
	if _, err := os.Stat(c.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory was made: %v", err)
	}
}

func TestDisk(t *testing.T) {
	demand(t, examine(t, Config{Settings: settings(t, nowhere(map[string]string{"min-free": "1000000TiB"}))}), "disk space", Fail, "--min-free", "503")
	demand(t, examine(t, Config{Settings: settings(t, nowhere(map[string]string{"max-store": "1000000TiB"}))}), "disk space", Warn, "--max-store")
	dir, err := os.MkdirTemp("/dev/shm", "doctor-") //nolint:usetesting // it has to be in memory
	if err != nil {
		t.Skip("no file system in memory here:", err)
	}
	defer os.RemoveAll(dir)
	demand(t, examine(t, Config{Settings: settings(t, nowhere(map[string]string{"data-dir": dir}))}), "disk", Fail, "tmpfs", "loses every waiting alert")
}

func TestConfigurationProblems(t *testing.T) {
	c, warnings, err := config.Load(config.Input{
		Flags: map[string]string{"listen": "0.0.0.0:4667", "retry-min": "2h"}, Environ: []string{"HOME=/h", "PMM_CALLGOOSE_LISTN=x"}, Serve: true,
	})
	var problems config.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	r := examine(t, Config{Settings: c, Problems: problems, Warnings: warnings, NoService: "no running service", Start: "start it with pmm-callgoose serve"})
	for _, word := range []string{"--listen", "--retry-min", "callgoose-url", "callgoose-token-file"} {
		demand(t, r, "configuration", Fail, word)
	}
	demand(t, r, "configuration", Warn, "PMM_CALLGOOSE_LISTN")
	demand(t, r, "service", Warn, "no running service", "pmm-callgoose serve")
	demand(t, r, "callgoose", Skip)
	stuck := examine(t, Config{Settings: c, NoService: "the service does not answer", Stuck: true, Start: "end it and start it again"})
	demand(t, stuck, "service", Fail, "does not answer", "start it again")
}

func TestIntake(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	demand(t, examine(t, Config{Settings: settings(t, nowhere(map[string]string{"listen": taken}))}), "intake", Fail, "--listen", "in use")
	demand(t, examine(t, Config{Settings: settings(t, nowhere(nil))}), "intake", OK, "free")

	c := settings(t, nowhere(nil))
	running := func(change func(*Service)) Report {
		s := new(side("up", nil, "", admin.Status{Version: "v", StartedAt: time.Now(), WebhookURL: "http://" + taken + "/v1/webhook"}))
		change(s)
		return examine(t, Config{Settings: c, Service: s})
	}
	demand(t, running(func(*Service) {}), "intake", OK, taken)
	demand(t, running(func(s *Service) { s.NotReady = "the store is full" }), "intake", Fail, "the store is full", "503")
	demand(t, running(func(s *Service) { s.WebhookURL = "http://" + closedPort(t) }), "intake", Fail, "refused")
	r := running(func(s *Service) { s.Remote = true })
	demand(t, r, "its machine", Skip)
	for _, f := range r.Findings {
		if f.Check == "intake" || f.Check == "fsync" {
			t.Errorf("of another machine: %+v", f)
		}
	}
}

// side is a service whose Callgoose is in that state.
func side(state string, since *time.Time, lastError string, s admin.Status) Service {
	s.Callgoose = admin.Callgoose{State: state, Since: since, LastError: lastError}
	s.Store.Accepting = true
	s.Conclude()
	return Service{Status: s, Where: "here"}
}

func TestWhatTheServiceSays(t *testing.T) {
	c := settings(t, nowhere(nil))
	ago := func(d time.Duration) *time.Time { at := time.Now().Add(-d); return &at }
	taken := &admin.LastDelivered{At: *ago(time.Minute), Title: "MySQL down", Effect: "created"}
	for _, tt := range []struct {
		name  string
		s     Service
		check string
		want  Severity
		words []string
	}{
		{"all is well", side("up", ago(time.Hour), "", admin.Status{LastDelivered: taken}), "delivery", OK, []string{"Callgoose takes events; nothing waits."}},
		{"down", side("down", ago(time.Hour), "cannot connect", admin.Status{Queued: 3}), "down", Fail, []string{"3 events", "cannot connect"}},
		{"held", side("held", ago(time.Hour), "401", admin.Status{}), "held", Fail, []string{"401", "token"}},
		{"nothing was sent", side("unknown", nil, "", admin.Status{}), "delivery", Warn, []string{"send-test"}},
		{"stuck", side("up", nil, "", admin.Status{OldestQueuedAt: ago(time.Hour), Queued: 1, LastDelivered: taken}), "delivery", Warn, []string{"1 h"}},
		{"dead", side("up", nil, "", admin.Status{Dead: 2}), "dead letters", Fail, []string{"2 events", "dead-letters"}},
		{"discarded", side("up", nil, "", admin.Status{Discarded: 2, DiscardedDay: 2}), "discarded", Fail, []string{"2 events", "replay"}},
		{"discarded long ago", side("up", nil, "", admin.Status{Discarded: 2}), "outcomes", Warn, []string{"replay"}},
		{"paused", side("paused", nil, "", admin.Status{}), "paused", Warn, []string{"resume"}},
		{"last call", side("up", nil, "", admin.Status{LastDelivered: taken}), "last call", OK, []string{"1 min ago", "MySQL down", "opened"}},
		{"last answer unknown", side("up", nil, "", admin.Status{LastDelivered: &admin.LastDelivered{Effect: "unknown"}}), "delivery", Warn, []string{"read"}},
		{"a heartbeat", side("up", nil, "", admin.Status{Ping: &admin.Ping{LastAt: ago(time.Minute)}}), "heartbeat", OK, []string{"1 min ago"}},
		{"a heartbeat that fails", side("up", nil, "", admin.Status{Ping: &admin.Ping{LastError: "refused"}}), "heartbeat failing", Warn, []string{"refused", "--ping-url-file"}},
		{
			"webhooks refused since the last one accepted",
			side("up", nil, "", admin.Status{Refused: ingest.Refusals{LastHour: 14, LastAt: ago(time.Second), LastCode: 401, LastReason: "the Bearer token is not ours", LastRemote: "172.17.0.2"}, Sources: []admin.PMM{{Name: "pmm", LastHeardAt: ago(time.Minute)}}}),
			"webhooks refused", Fail,
			[]string{"14 webhooks", "172.17.0.2", "401", "not ours", "contact point"},
		},
		{"long quiet", side("up", nil, "", admin.Status{Sources: []admin.PMM{{Name: "dr", LastHeardAt: ago(72 * time.Hour)}}}), "heard from pmm", Warn, []string{"dr", "3 d ago", "--expect-every"}},
		{"truncated", side("up", nil, "", admin.Status{Truncated: 2}), "outcomes", Warn, []string{"Max alerts"}},
		{"damaged", side("up", nil, "", admin.Status{Damaged: 2}), "outcomes", Warn, []string{"2 stored"}},
		{"never heard", side("up", nil, "", admin.Status{}), "heard from pmm", Warn, []string{"Test"}},
		{"silent", side("up", nil, "", admin.Status{Sources: []admin.PMM{{Name: "dr", SilentSince: ago(time.Hour)}}}), "pmm silent", Fail, []string{"dr", "heartbeat"}},
		{"heard", side("up", nil, "", admin.Status{Sources: []admin.PMM{{Name: "dr", LastHeardAt: ago(time.Minute)}}}), "heard from pmm", OK, []string{"dr, 1 min ago"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.Remote = true // nothing of this machine
			demand(t, examine(t, Config{Settings: c, Service: &tt.s}), tt.check, tt.want, tt.words...)
		})
	}
	says := func(problems []string, err error) Report {
		return examine(t, Config{Settings: c, Consistent: func(context.Context) (admin.Check, error) { return admin.Check{Problems: problems, Records: 2}, err }})
	}
	demand(t, says(nil, nil), "queue and ledger", OK, "2 records")
	demand(t, says([]string{"event x waits"}, nil), "queue and ledger", Fail, "event x waits", "ledger.db")
	demand(t, says(nil, errors.New("too large")), "queue and ledger", Skip, "too large")
}
