package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/admin/web"
	"pmm-callgoose/cmd/internal/alarm"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/metrics"
	"pmm-callgoose/cmd/internal/sdnotify"
	"pmm-callgoose/ingest"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
	"pmm-callgoose/store/queue"
	"pmm-callgoose/worker"
)

// Options are what a test or the demo sets and an operator does not.
type Options struct {
	Version string
	Logger  *slog.Logger // nil = none
	// Transport replaces the network towards Callgoose.
	Transport http.RoundTripper
	// Outside replaces the network towards the heartbeat service and the other way out.
	Outside http.RoundTripper
	// PMM replaces the network towards the PMM servers that are asked.
	PMM http.RoundTripper
	// NoSync switches fsync off. Only for tests in which nobody pulls the plug.
	NoSync bool
	// ShortFor is how long a stream of NATS servers may look shorter than it is; 0 = a minute.
	ShortFor time.Duration
	// NoListen binds no address: Handler is called directly.
	NoListen bool
	// Ready is called once, with the addresses really bound.
	Ready func(Addresses)
	// AtNextStart says which settings would be others at a start now, or why there would be
	// none. nil = nobody can say.
	AtNextStart func() ([]config.Change, config.Problems)
	// Notify is the service manager, nil when there is none.
	Notify *sdnotify.Notifier

	metrics *metrics.Metrics // nil = nobody counts
	drift   *drift           // nil = nobody looks at the answers
}

// Addresses are what is really bound; empty when it is off.
type Addresses struct {
	Webhooks string // URL for PMM
	Admin    string // URL for operators
}

// App is one forwarder. Make it with New, run it once.
type App struct {
	cfg       *config.Config
	opts      Options
	log       *slog.Logger
	handler   *ingest.Handler
	core      atomic.Pointer[core] // nil while the store is not open
	problem   atomic.Pointer[error]
	opening   atomic.Int64  // Unix nanoseconds: when the opening under way began
	opened    chan struct{} // closed when the first opening is over, well or not, or we stop
	fatal     chan error    // has an element when opening again cannot help
	started   time.Time
	jobs      jobs
	operators http.Handler // what the leader answers others with
	ping      *pinger      // nil = none
	fallback  *fallback
	refused   refusedAt
	serving   atomic.Int64              // webhooks that are being answered
	unstored  atomic.Pointer[time.Time] // when the last webhook could not be stored, for want of a disk or of NATS; nil = it was
	ticked    atomic.Pointer[time.Time] // when thaw came round last, nil = it does not run
	addrs     atomic.Pointer[Addresses] // nil until bound

	reconcilers []*reconciler // one for each --pmm-url
}

// New makes an App. It touches neither disk nor network.
func New(cfg *config.Config, opts Options) (*App, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	a := &App{cfg: cfg, log: opts.Logger.With("component", "app"), started: time.Now(), opened: make(chan struct{}), fatal: make(chan error, 1)}
	opts.metrics = metrics.New(metrics.Config{Version: opts.Version, Status: a.observe})
	a.opts = opts
	var err error
	if a.opts.drift, err = a.newDrift(); err != nil {
		return nil, err
	}
	a.operators = web.New(a.forOperators())
	a.ping, a.fallback = a.newPinger(), a.newFallback()
	a.makeReconcilers()
	ask := func(s *config.Secret) func() string {
		if !s.IsSet() {
			return nil
		}
		return s.Reveal
	}
	a.handler, err = ingest.New(ingest.Config{
		Publisher: a, Token: ask(cfg.IngestToken), Basic: ask(cfg.IngestBasicAuth), HMACSecret: ask(cfg.IngestHMACSecret),
		HMACTimestampHeader: cfg.IngestHMACTimestampHeader, Loopback: !opts.NoListen && !config.BeyondLoopback(cfg.Listen), MaxBody: cfg.MaxBody, Logger: opts.Logger,
		Known: func() map[string]bool { return a.known(a.core.Load()) }, Observer: opts.metrics,
	})
	return a, err
}

// Handler is the intake.
func (a *App) Handler() http.Handler { return a.handler }

// Metrics serves /metrics, without asking who reads it.
func (a *App) Metrics() http.Handler { return a.opts.metrics.Handler() }

// refused is an error that says when to come again.
type refused struct {
	error
	after time.Duration
}

func (r refused) RetryAfter() time.Duration { return r.after }
func (r refused) Unwrap() error             { return r.error }

// Publish implements ingest.Publisher.
func (a *App) Publish(ctx context.Context, n ingest.Notification) (string, error) {
	if a.wasFrozen() {
		return "", refused{errors.New("this process was frozen: what waited for it is old"), time.Second}
	}
	c := a.core.Load()
	if c == nil {
		c = a.await(ctx)
	}
	if c == nil {
		a.refused.note(n.Source)
		return "", refused{a.whyClosed(), 5 * time.Second}
	}
	origin := event.FromPMM
	if n.Made {
		origin = event.FromService
	}
	pos, err := c.queue.Publish(ctx, event.Notification{
		Source: n.Source, Origin: origin, BeganAt: n.BeganAt, ReceivedAt: n.ReceivedAt, Body: n.Body, Alerts: n.Alerts,
	})
	if err != nil {
		a.refused.note(n.Source)
	}
	a.unstored.Store(nil)
	if errors.Is(err, queue.ErrUnavailable) && !errors.Is(ctx.Err(), context.Canceled) { // a sender that left says nothing
		now := time.Now()
		a.unstored.Store(&now)
	}
	if errors.Is(err, queue.ErrFull) {
		err = refused{err, time.Minute}
	}
	return pos.NotificationID(), err
}

// refusedAt is when a webhook of each source last could not be stored. Safe concurrently.
type refusedAt struct {
	mu sync.Mutex
	at map[string]time.Time // guarded by mu; the intake bounds the sources
}

func (r *refusedAt) note(source string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = map[string]time.Time{}
	}
	r.at[source] = time.Now()
}

// last is the zero time where nothing of the source was refused since the start.
func (r *refusedAt) last(source string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[source]
}

// latest is that of any source.
func (r *refusedAt) latest() (latest time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.at {
		if at.After(latest) {
			latest = at
		}
	}
	return latest
}

func (a *App) whyClosed() error {
	if p := a.problem.Load(); p != nil {
		return fmt.Errorf("the store is being reopened: %w", *p)
	}
	return errors.New("the store is not open yet")
}

// Reload reads all secrets again, and probes Callgoose at once: SIGHUP.
func (a *App) Reload() {
	readable := true
	defer func() { a.opts.metrics.Reloaded(readable) }()
	for _, s := range a.cfg.Secrets() {
		changed, err := s.Reload()
		log := a.log.With("setting", s.Name(), "file", s.File())
		switch {
		case err != nil:
			readable = false
			log.Error("a secret cannot be read again, the old one stays", "err", err)
		case changed:
			log.Info("a secret was replaced")
		case s.File() != "":
			log.Info("a secret was read again and is the same")
		}
	}
	if c := a.core.Load(); c != nil {
		c.deliver().Kick()
	}
}

// answered waits for the webhooks that came before a stop, but not for long.
func (a *App) answered() {
	for began := time.Now(); a.serving.Load() > 0 && time.Since(began) < 10*time.Second; {
		time.Sleep(5 * time.Millisecond)
	}
}

// Run forwards until ctx ends. It returns nil after an orderly stop.
func (a *App) Run(ctx context.Context) (err error) {
	var cleanups []func()
	defer func() {
		for _, cleanup := range slices.Backward(cleanups) {
			cleanup()
		}
	}()
	later := func(fn func()) { cleanups = append(cleanups, fn) }
	lock, err := store.LockDir(a.cfg.DataDir)
	if err != nil {
		return err
	}
	later(lock.Unlock)
	if err := store.Moved(a.cfg.DataDir); err != nil {
		return err
	}
	later(func() {
		if a.addrs.Load() != nil { // it had started
			a.log.Info("stopped")
		}
	})
	var addrs Addresses
	// Opening takes seconds where much waits or after a crash, and stopping ten, and a
	// refused connection is a lost notification: the port is open longer than the store.
	if addrs.Webhooks, err = a.listen(later); err != nil { //nolint:contextcheck // a server outlives ctx by its shutdown
		return err
	}
	coreCtx, stopCore := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	later(func() {
		a.answered()
		stopCore()
		wg.Wait()
	})
	over := sync.OnceFunc(func() { close(a.opened) })
	defer context.AfterFunc(ctx, over)()
	first, err := a.openFirst(ctx)
	over()
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return nil // stopped meanwhile
	case err != nil:
		return err
	}
	a.begin(coreCtx, &wg, first)
	if addrs.Admin, err = a.listenAdmin(later); err != nil { //nolint:contextcheck // a server outlives ctx by its shutdown
		return err
	}
	a.addrs.Store(&addrs)
	a.tellReady(ctx, addrs)
	select {
	case <-ctx.Done():
		a.log.Info("stopping: no new webhooks, attempts under way get 10s")
	case err = <-a.fatal:
	}
	a.opts.Notify.Stopping("no new webhooks; attempts under way get 10 s")
	a.handler.Stop()
	faultpoint.Here("stop-begun")
	return err
}

// begin starts what runs until ctx ends.
func (a *App) begin(ctx context.Context, wg *sync.WaitGroup, first *core) {
	wg.Go(func() { a.keep(ctx, first) })
	about := alarm.New(alarm.Config{
		Command: a.cfg.AlarmCommand, Webhook: a.cfg.AlarmWebhook.Reveal, After: a.cfg.AlarmAfter,
		Status: a.Status, Version: a.opts.Version, Logger: a.opts.Logger,
	})
	wg.Go(func() { about.Run(ctx) })
	wg.Go(func() { a.watchSilence(ctx) })
	if a.cfg.NATS() != "" {
		wg.Go(func() { a.thaw(ctx) })
	}
	if a.ping != nil {
		wg.Go(func() { a.ping.run(ctx) })
	}
	if a.cfg.Reconcile != string(worker.ReconcileOff) {
		for _, r := range a.reconcilers {
			wg.Go(func() { r.run(ctx) })
		}
	}
	a.jobs.start(ctx, wg)
	if a.opts.Notify != nil {
		wg.Go(func() { a.watch(ctx) })
	}
}

// tellReady tells everybody who waits for it that webhooks are taken, and where.
func (a *App) tellReady(ctx context.Context, addrs Addresses) {
	line := a.statusLine(ctx)
	a.log.Info("started", "version", a.opts.Version, "data_dir", a.cfg.DataDir, "webhooks", addrs.Webhooks, "operators", addrs.Admin,
		"callgoose_url", a.cfg.CallgooseURL, "opened_in", time.Since(a.started).Round(time.Millisecond), "state", line)
	if err := a.Ready(); err != nil { //nolint:contextcheck // bounded by itself, and asked by those who have none
		a.log.Error("webhooks are refused with 503", "err", err)
	}
	if a.opts.Ready != nil {
		a.opts.Ready(addrs)
	}
	a.opts.Notify.Ready(line)
}

// keep runs the core, and opens it again when the store failed, or could not be
// opened yet (c is nil); but not when it holds what only a newer version can read, or was
// left: that would fail for ever.
func (a *App) keep(ctx context.Context, c *core) {
	for {
		var err error
		if c != nil {
			err = c.run(ctx)
			a.opening.Store(time.Now().UnixNano())
			a.core.Store(nil)
			c.close()
		} else {
			err = *a.problem.Load()
		}
		if ctx.Err() != nil {
			return
		}
		for {
			if errors.Is(err, event.ErrNewer) || errors.Is(err, queue.ErrLeft) {
				a.fatal <- err
				return
			}
			problem := err // its own variable: handlers read it while err changes
			a.problem.Store(&problem)
			a.opts.metrics.StoreFailed()
			a.log.Error("the store failed; opening it again", "err", err, "retry_in", reopenAfter)
			select {
			case <-ctx.Done():
				return
			case <-time.After(reopenAfter):
			}
			if c, err = a.open(ctx); err == nil {
				break
			}
		}
		a.problem.Store(nil)
		a.unstored.Store(nil)
		a.core.Store(c)
		a.log.Info("the store is open again")
	}
}

// listen binds the intake and serves on it. It returns its URL.
func (a *App) listen(later func(func())) (string, error) {
	if a.opts.NoListen {
		return "", nil
	}
	tlsConfig, err := ingest.TLSConfig(a.cfg.TLSCert, a.cfg.TLSKey, a.cfg.TLSClientCA)
	if err != nil {
		return "", config.Problems{{Where: "--tls-cert", Text: err.Error()}}
	}
	l, err := net.Listen("tcp", a.cfg.Listen) //nolint:noctx // binds at once
	if err != nil {
		return "", fmt.Errorf("--listen: %w", err)
	}
	srv := ingest.Server(a.handler, tlsConfig)
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.serving.Add(1) // before it is known whether the service stops
		defer a.serving.Add(-1)
		a.handler.ServeHTTP(w, r)
	})
	l = ingest.LimitListener(l, ingest.Connections(cmp.Or(a.cfg.MaxConnections, 1024), 2))
	return a.serve(later, srv, l) + l.Addr().String() + "/v1/webhook", nil
}

func (a *App) forOperators() web.Config {
	return web.Config{
		MaxBody: a.cfg.MaxBody, Source: a, Replayer: a, Carrier: a, Cluster: a, Metrics: a.Metrics(), Logger: a.opts.Logger,
		TokenRefused: a.opts.metrics.TokenRefused,
	}
}

// listenAdmin binds what operators ask and serves on it. It returns the URL of
// --admin-listen, "" when that is off.
func (a *App) listenAdmin(later func(func())) (string, error) {
	if a.opts.NoListen {
		return "", nil
	}
	sock, err := admin.ListenSocket(a.cfg.DataDir)
	if err != nil {
		return "", err
	}
	cfg := a.forOperators()
	local := &http.Server{Handler: a.operators, ReadHeaderTimeout: 5 * time.Second}
	endStreams(local)
	a.serve(later, local, sock)

	if a.cfg.AdminListen == "" {
		return "", nil
	}
	tlsConfig, err := ingest.TLSConfig(a.cfg.AdminTLSCert, a.cfg.AdminTLSKey, "")
	if err != nil {
		return "", config.Problems{{Where: "--admin-tls-cert", Text: err.Error()}}
	}
	al, err := net.Listen("tcp", a.cfg.AdminListen) //nolint:noctx // binds at once
	if err != nil {
		return "", fmt.Errorf("--admin-listen: %w", err)
	}
	if a.cfg.AdminToken.IsSet() {
		cfg.Token = a.cfg.AdminToken.Reveal
	}
	if ip := al.Addr().(*net.TCPAddr).IP; ip.IsLoopback() {
		cfg.Hosts = []string{"localhost", "127.0.0.1", "::1"}
		if !slices.Contains(cfg.Hosts, ip.String()) {
			cfg.Hosts = append(cfg.Hosts, ip.String())
		}
	}
	ops := &http.Server{
		Handler: ingest.Keep(web.New(cfg)), ConnContext: ingest.ConnContext, MaxHeaderBytes: 32 << 10, TLSConfig: tlsConfig, ErrorLog: ingest.ErrorLog(a.opts.Logger.With("component", "admin")),
		// What takes longer by its nature (tail, live, export, import) says so itself.
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute,
	}
	ops.Protocols = new(http.Protocols)
	ops.Protocols.SetHTTP1(true) // so that a bound on connections bounds requests too
	endStreams(ops)
	return a.serve(later, ops, ingest.LimitListener(al, ingest.Connections(128, 8))) + al.Addr().String(), nil
}

// endStreams ends the context of the server's requests when it stops: an open events
// tail must not hold up a stop.
func endStreams(srv *http.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	srv.RegisterOnShutdown(cancel)
}

// serve serves on l, with TLS where the server has settings for it, until the App stops:
// then its handlers may finish. It returns the beginning of its URL.
func (a *App) serve(later func(func()), srv *http.Server, l net.Listener) string {
	run, scheme := srv.Serve, "http://"
	if srv.TLSConfig != nil {
		run, scheme = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }, "https://"
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(l); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("a listener ended", "err", err)
		}
	}()
	later(func() {
		ctx, end := context.WithTimeout(context.Background(), 10*time.Second)
		defer end()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
		<-done
	})
	return scheme
}

// Line is what serve prints once it is ready.
func (a Addresses) Line() string {
	parts := []string{"webhooks " + a.Webhooks}
	if a.Admin != "" {
		parts = append(parts, "operators "+a.Admin)
	}
	return "pmm-callgoose is ready: " + strings.Join(parts, ", ")
}
