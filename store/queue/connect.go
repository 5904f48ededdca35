package queue

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// ErrUnfit means that the external servers, or the stream there, would not keep what is
// accepted. Waiting does not help, a person does.
var ErrUnfit = errors.New("the NATS servers cannot be used as they are")

// Permissions is what a server's configuration must grant to the user of the service;
// with --nats-name the names have that prefix.
var Permissions = permissions()

func permissions() string {
	publish := []string{subject, subject + ".*", logSubject, snapshotSubject + ".*", instances, leaderAsk, "_INBOX.>", "$JS.API.INFO"}
	for _, stream := range []string{streamName, logName, snapshotName} {
		for _, what := range []string{"STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO", "STREAM.PURGE", "STREAM.MSG.GET"} {
			publish = append(publish, "$JS.API."+what+"."+stream)
		}
		for _, what := range []string{"CREATE", "DELETE", "INFO", "MSG.NEXT"} {
			publish = append(publish, "$JS.API.CONSUMER."+what+"."+stream+".>")
		}
	}
	return fmt.Sprintf(`permissions: { publish: ["%s"], subscribe: ["_INBOX.>", "%s", "%s"] }`, strings.Join(publish, `", "`), instances, leaderAsk)
}

const dialWithin = 2 * time.Second

// options are those of each connection to an external server.
func (c Config) options() ([]nats.Option, error) {
	opts := []nats.Option{
		// A server that is frozen is noticed after three seconds, not after four minutes.
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.ReconnectWait(tryAfter), nats.Timeout(dialWithin),
		nats.SetCustomDialer(newDialer()),
		nats.IgnoreAuthErrorAbort(), // credentials that are being replaced must not end the connection for ever
	}
	if c.CAFile != "" {
		opts = append(opts, nats.RootCAs(c.CAFile))
	}
	if c.CertFile != "" || c.KeyFile != "" {
		opts = append(opts, nats.ClientCert(c.CertFile, c.KeyFile))
	}
	if c.User != nil {
		if strings.Contains(c.User(), ":") {
			return append(opts, nats.UserInfoHandler(func() (string, string) {
				user, password, _ := strings.Cut(c.User(), ":")
				return user, password
			})), nil
		}
		return append(opts, nats.TokenHandler(c.User)), nil
	}
	if c.Creds != nil {
		login, err := c.login()
		if err != nil {
			return nil, fmt.Errorf("%w: nats credentials: neither a .creds file nor the seed of an nkey: %w", ErrUnfit, err)
		}
		opts = append(opts, login)
	}
	return opts, nil
}

// login uses what Creds returns.
func (c Config) login() (nats.Option, error) {
	pair := func() (nkeys.KeyPair, error) { return nkeys.ParseDecoratedNKey([]byte(c.Creds())) }
	sign := func(nonce []byte) ([]byte, error) {
		p, err := pair()
		if err != nil {
			return nil, err
		}
		return p.Sign(nonce)
	}
	p, err := pair()
	if err != nil {
		return nil, err
	}
	if strings.Contains(c.Creds(), "-----BEGIN") {
		return nats.UserJWT(func() (string, error) { return nkeys.ParseDecoratedJWT([]byte(c.Creds())) }, sign), nil
	}
	public, err := p.PublicKey()
	if err != nil {
		return nil, err
	}
	return func(o *nats.Options) error {
		// The name of an nkey is fixed for a connection, so another seed needs another one.
		return nats.Nkey(public, func(nonce []byte) ([]byte, error) {
			if p, err := pair(); err == nil {
				if now, _ := p.PublicKey(); now != public && c.replaced != nil {
					c.replaced(fmt.Errorf("%w: the nkey was replaced", ErrUnavailable))
				}
			}
			return sign(nonce)
		})(o)
	}, nil
}

// newDialer makes connections that hold nothing back: what hangs in a socket must
// not reach a server minutes later, when it was published again meanwhile.
func newDialer() *dialer {
	return &dialer{net.Dialer{Timeout: dialWithin, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { limitUnsent(int(fd), storeWithin) })
	}}}
}

type dialer struct{ net.Dialer }

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := d.Dialer.Dial(network, address)
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		err = tcp.SetLinger(0)
	}
	return conn, err
}

// oldServer says why the server that answers is too old, "" when it is not.
func oldServer(version string) string {
	var major, minor int
	_, _ = fmt.Sscanf(version, "%d.%d", &major, &minor)
	if major > 2 || major == 2 && minor >= 14 {
		return ""
	}
	return fmt.Sprintf("its version is %s, and 2.14 is the oldest that can be used", cmp.Or(version, "unknown"))
}

var deniedSubject = regexp.MustCompile(`(?i)for (publish|subscription) to "([^"]+)"`)

// denied is the error for a permission that the user lacks.
func denied(err error) error {
	what := "something"
	if m := deniedSubject.FindStringSubmatch(err.Error()); m != nil {
		verb := "publish"
		if strings.EqualFold(m[1], "subscription") {
			verb = "subscribe"
		}
		what = verb + " to " + m[2]
	}
	return fmt.Errorf("%w: the user may not %s; what it needs: %s", ErrUnfit, what, Permissions)
}

// heardError notes what the servers say unasked. While they refuse the credentials
// they say so ten times a second.
func (q *Queue) heardError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		err = denied(err)
		q.denied.Store(&err)
	}
	if last := q.said.Load(); last == nil || last.text != err.Error() || time.Since(last.at) > time.Minute {
		q.said.Store(&said{err.Error(), time.Now()})
		q.cfg.Logger.Warn("a NATS server reports an error", "component", "queue", "err", err)
	}
}

// said is what was logged last.
type said struct {
	text string
	at   time.Time
}

func (q *Queue) heardEnd(_ *nats.Conn, err error) {
	if err != nil { // not closed by this process
		q.cfg.Logger.Warn("the connection to NATS is lost; connecting again", "component", "queue", "err", err)
	}
}

func (q *Queue) heardAgain(nc *nats.Conn) {
	log := q.cfg.Logger.With("component", "queue", "server", nc.ConnectedServerName(), "version", nc.ConnectedServerVersion())
	if old := oldServer(nc.ConnectedServerVersion()); old != "" {
		log.Error("a NATS server is too old: upgrade it", "err", old)
		return
	}
	log.Info("connected to NATS again")
}

// refusal is the permission that was found missing, nil when none was.
func (q *Queue) refusal() error {
	if err := q.denied.Load(); err != nil {
		return *err
	}
	return nil
}
