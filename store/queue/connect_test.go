package queue

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// file returns what a file holds at present.
func file(text string) (now func() string, set func(string)) {
	var v atomic.Pointer[string]
	v.Store(&text)
	return func() string { return *v.Load() }, func(text string) { v.Store(&text) }
}

// newUser makes the seed of an nkey and the server's entry for it.
func newUser(t *testing.T) (seed, public string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pair.Seed()
	public, _ = pair.PublicKey()
	return string(b), public
}

func TestWaysToLogIn(t *testing.T) {
	t.Parallel()
	seed, public := newUser(t)
	creds, options := decentralised(t)
	for name, way := range map[string]struct {
		server server.Options
		login  Config
	}{
		"user and password": {server.Options{Username: "svc", Password: "secret-word"}, Config{User: func() string { return "svc:secret-word" }}},
		"token":             {server.Options{Authorization: "secret-word"}, Config{User: func() string { return "secret-word" }}},
		"seed of an nkey":   {server.Options{Nkeys: []*server.NkeyUser{{Nkey: public}}}, Config{Creds: func() string { return seed }}},
		".creds file":       {options, Config{Creds: func() string { return creds }}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way.server.StoreDir = t.TempDir()
			srv := natsServer(t, way.server)
			way.login.URL = srv.ClientURL()
			publish(t, start(t, way.login), "x")
			for _, wrong := range []Config{{URL: srv.ClientURL()}, {URL: srv.ClientURL(), User: func() string { return "svc:other-word" }}} {
				_, err := Open(t.Context(), wrong)
				if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "-word") {
					t.Errorf("with wrong credentials: %v", err)
				}
			}
		})
	}
	if _, err := Open(t.Context(), Config{URL: "nats://127.0.0.1:1", Creds: func() string { return "secret-word" }}); !errors.Is(err, ErrUnfit) || strings.Contains(err.Error(), "secret-word") {
		t.Errorf("credentials that are none: %v", err)
	}
	for _, url := range []string{"nats://somebody:secret-word@127.0.0.1:wrong", "nats://somebody:secret-word@127.0.0.1:1"} {
		if _, err := Open(t.Context(), Config{URL: url}); err == nil || strings.Contains(err.Error(), "secret-word") {
			t.Error(err)
		}
	}
}

// decentralised makes a user by JWT, and the options of a server that trusts it.
func decentralised(t *testing.T) (creds string, opts server.Options) {
	t.Helper()
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		p, err := create()
		if err != nil {
			t.Fatal(err)
		}
		public, _ := p.PublicKey()
		return p, public
	}
	operator, operatorKey := pair(nkeys.CreateOperator)
	account, accountKey := pair(nkeys.CreateAccount)
	user, userKey := pair(nkeys.CreateUser)
	ac := jwt.NewAccountClaims(accountKey)
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
	accountJWT, err := ac.Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	userJWT, err := jwt.NewUserClaims(userKey).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := user.Seed()
	formatted, err := jwt.FormatUserConfig(userJWT, seed)
	if err != nil {
		t.Fatal(err)
	}
	_, systemKey := pair(nkeys.CreateAccount)
	systemJWT, err := jwt.NewAccountClaims(systemKey).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	_ = resolver.Store(accountKey, accountJWT)
	_ = resolver.Store(systemKey, systemJWT)
	return string(formatted), server.Options{TrustedKeys: []string{operatorKey}, SystemAccount: systemKey, AccountResolver: resolver}
}

// Credentials are read again whenever the connection is made anew.
func TestReplacedCredentialsNeedNoRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	password, replace := file("svc:first-word")
	srv := natsServer(t, server.Options{StoreDir: dir, Username: "svc", Password: "first-word"})
	q := start(t, Config{URL: srv.ClientURL(), User: password})
	publish(t, q, "x")
	port := srv.Addr().(*net.TCPAddr).Port
	stopServer(srv)
	natsServer(t, server.Options{StoreDir: dir, Port: port, Username: "svc", Password: "second-word"})
	time.Sleep(500 * time.Millisecond) // the old password is refused, more than once
	replace("svc:second-word")
	await(t, func() bool { return q.Full() == nil })
	publish(t, q, "y")
}

func TestAReplacedKeyIsAFailureOfTheConnection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, firstPublic := newUser(t)
	second, secondPublic := newUser(t)
	key, replace := file(first)
	srv := natsServer(t, server.Options{StoreDir: dir, Nkeys: []*server.NkeyUser{{Nkey: firstPublic}}})
	q := start(t, Config{URL: srv.ClientURL(), Creds: key})
	port := srv.Addr().(*net.TCPAddr).Port
	stopServer(srv)
	replace(second)
	natsServer(t, server.Options{StoreDir: dir, Port: port, Nkeys: []*server.NkeyUser{{Nkey: secondPublic}}})
	if err := <-q.Failed(); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	_ = q.Close()
	publish(t, start(t, Config{URL: srv.ClientURL(), Creds: key}), "y")
}

// await waits for what takes its time.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("it does not come")
		}
	}
}

func TestTLSWithACertificateOfOurOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	srv := natsServer(t, server.Options{
		StoreDir: t.TempDir(), TLSTimeout: 5, TLSVerify: true,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12},
	})
	publish(t, start(t, Config{URL: srv.ClientURL(), CAFile: cert, CertFile: cert, KeyFile: key}), "x")
	for _, c := range []Config{{URL: srv.ClientURL()}, {URL: srv.ClientURL(), CAFile: cert}, {URL: srv.ClientURL(), CertFile: cert, KeyFile: key}} {
		if _, err := Open(t.Context(), c); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	plain := natsServer(t, server.Options{StoreDir: t.TempDir()})
	if _, err := Open(t.Context(), Config{URL: plain.ClientURL(), CAFile: cert}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a server without TLS is used although an authority was named: %v", err)
	}
}

// certificate makes one that is its own authority, for servers and clients.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nats"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// What waiting cannot heal is refused, with what must be added where.
func TestServersThatCannotKeepWhatIsAcceptedAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		server   func(*server.Options)
		replicas int
		says     string
	}{
		"JetStream is off":                {func(o *server.Options) { o.JetStream = false }, 0, "jetstream {"},
		"JetStream is off in the account": {withAccounts, 0, "jetstream: enabled"},
		"one server for three replicas":   {func(*server.Options) {}, 3, "needs 3 servers"},
		"may not ask others":              {allowOnly([]string{"_INBOX.>", "$JS.API.>", subject, instances}, []string{"_INBOX.>"}), 0, "subscribe to " + instances + ";"},
		"may not look at the stream":      {allowOnly([]string{"_INBOX.>", instances, subject}, []string{">"}), 0, "publish to $JS.API.STREAM.INFO.NOTIFICATIONS;"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
			c.server(&opts)
			srv, err := server.NewServer(&opts)
			if err != nil {
				t.Fatal(err)
			}
			srv.Start()
			t.Cleanup(func() { stopServer(srv) })
			if !srv.ReadyForConnections(30 * time.Second) {
				t.Fatal("the server does not start")
			}
			if _, err := Open(t.Context(), Config{URL: srv.ClientURL(), Replicas: c.replicas, User: func() string { return "svc:secret-word" }}); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v\nshould be refused with %q", err, c.says)
			}
		})
	}
}

func withAccounts(o *server.Options) {
	without := server.NewAccount("without")
	o.Accounts = []*server.Account{without}
	o.Users = []*server.User{{Username: "svc", Password: "secret-word", Account: without}}
}

func allowOnly(publish, subscribe []string) func(*server.Options) {
	return func(o *server.Options) {
		o.Users = []*server.User{{Username: "svc", Password: "secret-word", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe},
		}}}
	}
}

// With what Permissions grants, and nothing else, everything works.
func TestThePermissionsAreEnough(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "nats.conf")
	text := fmt.Sprintf("authorization { users: [ { user: svc, password: secret-word, %s } ] }", Permissions)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(config)
	if err != nil {
		t.Fatal(err)
	}
	opts.StoreDir = t.TempDir()
	srv := natsServer(t, *opts)
	cfg := Config{URL: srv.ClientURL(), User: func() string { return "svc:secret-word" }}
	q := start(t, cfg)
	publish(t, q, "x")
	publish(t, q, "y")
	if _, err := q.Read(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if err := q.Purge(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrSecond) {
		t.Error(err)
	}
	if err := q.refusal(); err != nil {
		t.Error(err)
	}
}

func TestAnOldServerIsRefused(t *testing.T) {
	t.Parallel()
	for version, old := range map[string]bool{"2.10.22": true, "2.13.9": true, "1.99.0": true, "": true, "2.14.0": false, "2.14.0-RC.1": false, "2.15.2": false, "3.0.0": false} {
		if why := oldServer(version); (why != "") != old {
			t.Errorf("%s: %q", version, why)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // as much of an old server as is asked before the version is looked at
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte("INFO {\"server_id\":\"x\",\"version\":\"2.10.22\",\"max_payload\":1048576,\"headers\":true}\r\n"))
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if strings.Contains(string(b[:n]), "PING") {
				_, _ = conn.Write([]byte("PONG\r\n"))
			}
		}
	}()
	if _, err := Open(t.Context(), Config{URL: "nats://" + l.Addr().String()}); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "2.10.22") {
		t.Error(err)
	}
}

// A server that has no room says so: it is no failure of the store.
func TestAFullServerIsNotAFailedStore(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	made := streamConfig()
	made.MaxBytes = 100 << 10
	createStream(t, client(t, srv), made)
	q := start(t, Config{URL: srv.ClientURL()})
	if _, err := q.Publish(t.Context(), note(random(1, 200<<10))); !errors.Is(err, ErrFull) || errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if len(q.Failed()) > 0 || len(q.Refused()) == 0 {
		t.Error("the store is opened again, or retention not asked for room")
	}
	publish(t, q, "a small one")
}

// A frozen server answers nothing: intake would be refused, and is said to be.
func TestAServerThatDoesNotAnswerIsNotReady(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	q := start(t, Config{URL: srv.ClientURL()})
	if err := q.Full(); err != nil {
		t.Error(err)
	}
	js := client(t, srv)
	if err := js.DeleteStream(t.Context(), streamName); err != nil { // connected, and nobody answers for the stream
		t.Fatal(err)
	}
	await(t, func() bool { return errors.Is(q.Full(), ErrUnavailable) })
}

// In a cluster another error says that something slipped in between.
func TestALostAcknowledgementIsFoundInACluster(t *testing.T) {
	t.Parallel()
	servers := cluster(t)
	q := start(t, Config{URL: servers[0].ClientURL()})
	publish(t, q, "x")
	js := client(t, servers[1])
	m := nats.NewMsg(subject)
	m.Data = []byte{0}
	if _, err := js.PublishMsg(t.Context(), m, jetstream.WithMsgID("other")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := q.Publish(t.Context(), note("y")); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "somebody else stored 2") {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}
