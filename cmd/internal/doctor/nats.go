package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/queue"
)

// nats checks the external servers, as the service uses them.
func (e *examination) nats(ctx context.Context) {
	if e.NATS == nil {
		return
	}
	x := e.NATS(ctx)
	reached := 0
	for _, at := range x.Addresses {
		if at.Err == nil {
			reached++
		}
	}
	for _, at := range x.Addresses {
		e.natsServer(at, reached)
	}
	if len(x.Addresses) == 1 && e.Settings.NATSReplicas > 1 {
		e.warn("nats", fix("Name at least two servers in --nats-url."), "only one server is named: while that one is away, webhooks are refused")
	}
	e.natsSync(x.Monitored)
	for _, err := range x.Denied {
		e.fail("nats permissions", fix("In the account of the service's user: "+queue.Permissions), "%v", err)
	}
	switch {
	case len(x.Denied) > 0:
	case x.Err != nil && reached > 0:
		e.fail("nats stream", fix("nats server report jetstream shows what the servers think of themselves."), "%v", x.Err)
	case x.Err != nil:
		e.skip("nats stream", "%v", x.Err)
	default:
		e.ok("nats permissions", "the user may do what the service does")
		for _, s := range x.Streams {
			e.natsStream(s)
		}
		e.natsRoom(x)
	}
}

// cluster says what the running service knows of the other instances.
func (e *examination) cluster() {
	if e.Service == nil || e.Service.Cluster == nil || e.Service.Cluster.Leader == "" {
		return
	}
	c := e.Service.Cluster
	since := ""
	if c.LeaderSince != nil {
		since = " for " + text.Span(time.Since(*c.LeaderSince))
	}
	var names []string
	for _, i := range c.Instances {
		names = append(names, i.Name+" "+i.Version)
	}
	e.ok("cluster", "instance %s; %s has led%s, term %d; heard of lately: %s", c.Instance, c.Leader, since, c.Term, strings.Join(names, ", "))
}

func (e *examination) natsServer(at queue.Address, reached int) {
	how := []string{"without TLS"}
	if at.TLS {
		how = []string{"TLS"}
	}
	for _, way := range []struct {
		set  bool
		name string
	}{
		{e.Settings.NATSCreds.IsSet(), "logged in with credentials"},
		{e.Settings.NATSUser.IsSet(), "logged in with user or token"},
		{e.Settings.NATSCert != "", "client certificate"},
		{strings.Contains(e.Settings.NATS(), "@"), "logged in with what the URL holds"},
	} {
		if way.set {
			how = append(how, way.name)
		}
	}
	switch {
	case at.Err != nil && reached == 0:
		e.fail("nats", fix("Look at address, firewall, credentials and certificates: until a server answers, webhooks are refused with 503."), "%s: %v", at.URL, at.Err)
	case at.Err != nil:
		e.warn("nats", fix("Start it again, or take it out of --nats-url: another one lost would be one too many."), "%s: %v", at.URL, at.Err)
	case at.Old != "":
		e.fail("nats", fix("Upgrade it."), "%s (%s): %s", at.URL, at.Name, at.Old)
	default:
		e.ok("nats", "%s: %s, version %s, round trip %s, %s", at.URL, at.Name, at.Version, round(at.RoundTrip), strings.Join(how, ", "))
	}
}

// natsSync says whether what the servers acknowledge survives the loss of power.
func (e *examination) natsSync(list []queue.Monitored) {
	if len(list) == 0 {
		e.skip("nats sync", "only the monitoring port says whether each write is synced: name it with --nats-monitor")
		return
	}
	for _, m := range list {
		switch {
		case m.Err != nil:
			e.warn("nats sync", fix("Correct --nats-monitor, or switch on the server's monitoring: http: 127.0.0.1:8222"), "%s: %v", m.URL, m.Err)
		case !m.SyncAlways:
			e.warn("nats sync", fix("In the server's configuration: jetstream { sync_interval: always }"),
				"%s syncs every two minutes: when all servers lose power at once, what was accepted since then is lost", m.Name)
		default:
			e.ok("nats sync", "%s syncs each write", m.Name)
		}
	}
}

func (e *examination) natsStream(s queue.Found) {
	const check = "nats stream"
	switch {
	case s.Unfit != "":
		e.fail(check, fix("Move it aside (nats stream backup, then rm), or use another account."), "the stream %s %s", s.Name, s.Unfit)
	case s.Replicas < e.Settings.NATSReplicas:
		e.warn(check, fix("The service raises it at its next start, if there are as many servers."), "%s has %d replicas, fewer than --nats-replicas %d", s.Name, s.Replicas, e.Settings.NATSReplicas)
	case s.Current < s.Replicas:
		e.warn(check, fix("nats stream info "+s.Name+" names the server that is behind."), "%d of the %d replicas of %s are current", s.Current, s.Replicas, s.Name)
	default:
		leader := ""
		if s.Leader != "" {
			leader = ", leader " + s.Leader
		}
		e.ok(check, "%s: %s, all current%s, %s", s.Name, text.Plural(s.Replicas, "replica", "replicas"), leader, text.Size(int64(s.Bytes))) //nolint:gosec // bytes of a disk
	}
}

// natsRoom says whether the servers take what there may be.
func (e *examination) natsRoom(x queue.Examined) {
	const check = "nats room"
	free := text.Size(x.FreeBytes) + " of the account are free"
	switch {
	case x.FreeBytes < 0:
		e.ok(check, "the account has no limit")
	case x.FreeBytes < e.Settings.MaxStore:
		e.warn(check, fix("Raise the limit of the account, or lower --max-store."), "%s, less than --max-store %s", free, text.Size(e.Settings.MaxStore))
	default:
		e.ok(check, "%s", free)
	}
	if len(x.Streams) == 0 {
		e.ok("nats stream", "they are made at the first start")
	}
	if x.MaxPayload < e.Settings.MaxBody {
		e.warn(check, fix("Raise max_payload in the servers' configuration, or lower --max-body."), "%s", fmt.Sprintf("a message may have %s, and --max-body is %s: larger webhooks are refused", text.Size(x.MaxPayload), text.Size(e.Settings.MaxBody)))
	}
}
