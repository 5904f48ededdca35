package doctor

import (
	"context"
	"errors"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/queue"
)

func TestTheServersOfNATS(t *testing.T) {
	whole := queue.Examined{
		Addresses: []queue.Address{{URL: "n1:4222", Name: "n1", Version: "2.15.2", TLS: true, RoundTrip: time.Millisecond}, {URL: "n2:4222", Name: "n2", Version: "2.15.2"}},
		Streams: []queue.Found{
			{Stream: queue.Stream{Name: "NOTIFICATIONS", Leader: "n1", Replicas: 3, Current: 3, Bytes: 1 << 20}},
			{Stream: queue.Stream{Name: "LEDGER", Leader: "n1", Replicas: 3, Current: 3, Bytes: 1 << 20}},
		},
		MaxPayload: 64 << 20, FreeBytes: -1,
		Monitored: []queue.Monitored{{URL: "http://n1:8222", Name: "n1", SyncAlways: true}},
	}
	for name, tt := range map[string]struct {
		change func(*queue.Examined)
		check  string
		want   Severity
		words  []string
	}{
		"a server":             {func(*queue.Examined) {}, "nats", OK, []string{"n1:4222", "2.15.2", "1ms", "TLS"}},
		"the stream":           {func(*queue.Examined) {}, "nats stream", OK, []string{"3 replicas", "leader n1"}},
		"the room":             {func(*queue.Examined) {}, "nats room", OK, []string{"no limit"}},
		"all that is needed":   {func(*queue.Examined) {}, "nats permissions", OK, nil},
		"each write is synced": {func(*queue.Examined) {}, "nats sync", OK, []string{"n1"}},
		"none answers": {func(x *queue.Examined) {
			x.Addresses[0].Err, x.Addresses[1].Err = errors.New("refused"), errors.New("refused")
			x.Err = errors.New("none")
		}, "nats", Fail, []string{"n1:4222: refused", "503"}},
		"one does not answer":    {func(x *queue.Examined) { x.Addresses[1].Err = errors.New("refused") }, "nats", Warn, []string{"n2:4222: refused"}},
		"an old one":             {func(x *queue.Examined) { x.Addresses[0].Old = "its version is 2.10" }, "nats", Fail, []string{"n1", "2.10"}},
		"only one is named":      {func(x *queue.Examined) { x.Addresses = x.Addresses[:1] }, "nats", Warn, []string{"--nats-url"}},
		"not synced":             {func(x *queue.Examined) { x.Monitored[0].SyncAlways = false }, "nats sync", Warn, []string{"sync_interval: always"}},
		"nobody says":            {func(x *queue.Examined) { x.Monitored = nil }, "nats sync", Skip, []string{"--nats-monitor"}},
		"monitoring is off":      {func(x *queue.Examined) { x.Monitored[0].Err = errors.New("refused") }, "nats sync", Warn, []string{"http://n1:8222"}},
		"a permission missing":   {func(x *queue.Examined) { x.Denied = []error{errors.New("may not publish to x")} }, "nats permissions", Fail, []string{"may not publish to x", "permissions: {"}},
		"JetStream is off":       {func(x *queue.Examined) { x.Err = errors.New("JetStream is off") }, "nats stream", Fail, []string{"JetStream is off"}},
		"no stream yet":          {func(x *queue.Examined) { x.Streams = nil }, "nats stream", OK, []string{"first start"}},
		"a stream that forgets":  {func(x *queue.Examined) { x.Streams[0].Unfit = "has a max_age" }, "nats stream", Fail, []string{"NOTIFICATIONS has a max_age"}},
		"fewer replicas":         {func(x *queue.Examined) { x.Streams[1].Replicas, x.Streams[1].Current = 1, 1 }, "nats stream", Warn, []string{"LEDGER has 1 replicas"}},
		"a replica is behind":    {func(x *queue.Examined) { x.Streams[1].Current = 2 }, "nats stream", Warn, []string{"2 of the 3 replicas of LEDGER"}},
		"an account nearly full": {func(x *queue.Examined) { x.FreeBytes = 1 << 20 }, "nats room", Warn, []string{"--max-store"}},
		"small messages only":    {func(x *queue.Examined) { x.MaxPayload = 1 << 20 }, "nats room", Warn, []string{"--max-body", "max_payload"}},
	} {
		t.Run(name, func(t *testing.T) {
			x := whole
			x.Addresses = append([]queue.Address(nil), whole.Addresses...)
			x.Monitored = append([]queue.Monitored(nil), whole.Monitored...)
			x.Streams = append([]queue.Found(nil), whole.Streams...)
			tt.change(&x)
			c := settings(t, nowhere(map[string]string{"nats-url": "tls://n1:4222,tls://n2:4222"}))
			demand(t, examine(t, Config{Settings: c, NATS: func(context.Context) queue.Examined { return x }}), tt.check, tt.want, tt.words...)
		})
	}
}

// What the service knows of the other instances is told with its fix.
func TestTheInstancesOfACluster(t *testing.T) {
	since := time.Now().Add(-3 * time.Hour)
	for name, tt := range map[string]struct {
		change func(*admin.Cluster)
		check  string
		want   Severity
		words  []string
	}{
		"all is well":          {func(*admin.Cluster) {}, "cluster", OK, []string{"instance b", "a has led for 3 h", "term 962", "a 1.4.0, b 1.4.0"}},
		"none leads":           {func(c *admin.Cluster) { c.Leader = "" }, "no leader", Fail, []string{"No instance leads", "status --cluster"}},
		"other settings":       {func(c *admin.Cluster) { c.SettingsDiffer = []string{"rate"} }, "settings differ", Warn, []string{"rate", "same settings"}},
		"two of a name":        {func(c *admin.Cluster) { c.SameName = true }, "instance name", Warn, []string{"--instance"}},
		"clocks differ":        {func(c *admin.Cluster) { c.ClockSkew = 180 }, "clock skew", Warn, []string{"3 min ahead of", "chrony"}},
		"NATS does not answer": {func(c *admin.Cluster) { c.NATS.Connected = false }, "nats unreachable", Fail, []string{"do not answer this instance"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := admin.Status{Cluster: &admin.Cluster{
				Instance: "b", Role: "follower", Leader: "a", LeaderSince: &since, Term: 962, NATS: &queue.Servers{Connected: true},
				Instances: []admin.Instance{{Name: "a", Version: "1.4.0"}, {Name: "b", Version: "1.4.0"}},
			}}
			tt.change(s.Cluster)
			s.Conclude()
			c := settings(t, nowhere(map[string]string{"nats-url": "tls://n1:4222,tls://n2:4222"}))
			demand(t, examine(t, Config{Settings: c, Service: &Service{Status: s, Where: "here"}}), tt.check, tt.want, tt.words...)
		})
	}
}
