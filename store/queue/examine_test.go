package queue

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

func TestExamineSaysWhatIsThere(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir(), SyncAlways: true, ServerName: "n1", Username: "svc", Password: "secret-word", HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	monitor := "http://" + srv.MonitorAddr().String()
	cfg := Config{
		URL: fmt.Sprintf("nats://svc:secret-word@%s, nats://svc:secret-word@%s", closed.Addr(), srv.Addr()), Monitor: []string{monitor, "http://" + closed.Addr().String()},
	}
	x := Examine(t.Context(), cfg)
	if x.Err != nil || len(x.Streams) > 0 || len(x.Denied) > 0 || strings.Contains(fmt.Sprintf("%+v", x), "secret-word") {
		t.Errorf("before the first start: %+v", x)
	}
	if len(x.Addresses) != 2 || x.Addresses[0].Err == nil || x.Addresses[1].Err != nil || x.Addresses[1].Name != "n1" || x.Addresses[1].TLS || x.Addresses[1].Old != "" {
		t.Errorf("the servers: %+v", x.Addresses)
	}
	if len(x.Monitored) != 2 || !x.Monitored[0].SyncAlways || x.Monitored[0].Name != "n1" || x.Monitored[1].Err == nil {
		t.Errorf("monitoring: %+v", x.Monitored)
	}
	cfg.Monitor = cfg.Monitor[:1]
	q := start(t, cfg)
	publish(t, q, "x")
	l, err := q.OpenLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if x = Examine(t.Context(), cfg); x.Err != nil || len(x.Streams) != 3 || x.Streams[0].Current != 1 || x.Streams[1].Name != "LEDGER" || x.Streams[2].Unfit != "" || x.MaxPayload != 1<<20 || x.FreeBytes != -1 {
		t.Errorf("beside the service: %+v", x)
	}
	if state, err := q.state(t.Context()); err != nil || state.LastSeq != 1 {
		t.Errorf("something was stored by looking: %+v, %v", state, err)
	}
	await(t, func() bool { return l.Servers().Sync == "always" })
	if s := l.Servers(); !s.Connected || s.Name != "n1" || s.Sync != "always" || s.Replicas != 1 || len(s.Streams) != 3 || s.Streams[0].Bytes == 0 {
		t.Errorf("the service knows %+v", s)
	}
}

func TestExamineFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	opts := server.Options{StoreDir: t.TempDir()}
	allowOnly([]string{"_INBOX.>", "$JS.API.>"}, []string{"_INBOX.>"})(&opts)
	opts.Users = append(opts.Users, &server.User{Username: "admin", Password: "secret-word"})
	srv := natsServer(t, opts)
	publish(t, start(t, Config{URL: srv.ClientURL(), User: func() string { return "admin:secret-word" }}), "x")
	x := Examine(t.Context(), Config{URL: srv.ClientURL(), User: func() string { return "svc:secret-word" }})
	said := fmt.Sprint(x.Denied)
	if len(x.Denied) != 3 || !strings.Contains(said, "subscribe to "+leaderAsk+";") || !strings.Contains(said, "subscribe to "+instances+";") || !strings.Contains(said, "publish to "+subject+";") {
		t.Errorf("denied: %s", said)
	}
	if x := Examine(t.Context(), Config{URL: srv.ClientURL(), User: func() string { return "svc:other-word" }}); x.Err == nil || x.Addresses[0].Err == nil {
		t.Errorf("with a wrong password: %+v", x)
	}
	if x := Examine(t.Context(), Config{URL: srv.ClientURL(), Creds: func() string { return "none" }}); !errors.Is(x.Err, ErrUnfit) {
		t.Errorf("with credentials that are none: %+v", x)
	}
}

func TestAServerThatDoesNotSyncIsTold(t *testing.T) {
	for want, list := range map[string][]Monitored{
		"unknown":  {{SyncAlways: true}, {Err: errors.New("x")}},
		"always":   {{SyncAlways: true}, {SyncAlways: true}},
		"interval": {{SyncAlways: true}, {SyncAlways: false}},
	} {
		if got := syncOf(list); got != want {
			t.Errorf("%+v: %s", list, got)
		}
	}
	if got := syncOf(nil); got != "unknown" {
		t.Error(got)
	}
}
