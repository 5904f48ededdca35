package doctor

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"pmm-callgoose/cmd/internal/config"
)

// Config is what is looked at, and how.
type Config struct {
	// Settings are those of the running service, else those that serve would
	// have. Required.
	Settings *config.Config
	// Problems and Warnings are what config.Load said of them.
	Problems config.Problems
	Warnings []config.Warning

	// Service is what a running service says of itself; nil when there is none,
	// and NoService says why it could not be asked.
	Service   *Service
	NoService string

	// Consistent compares queue and ledger: through the service, or offline. It
	// returns what is wrong and, in a few words, what it looked at. An error says
	// why it could not look. nil = it is not to be done.
	Consistent func(context.Context) (problems []string, looked string, err error)

	// TestEvent opens an incident in Callgoose and closes it, to check the
	// filters. Severity is that of the test; "" = info.
	TestEvent bool
	Severity  string

	PMM PMM

	// Proxy chooses the proxy towards Callgoose; nil = that of the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// Timeout bounds each step of a connection. 0 = 10s.
	Timeout time.Duration
}

// Service is what a running service says of itself.
type Service struct {
	Where     string // where it was asked
	Remote    bool   // it runs on another machine
	Version   string
	StartedAt time.Time
	// NotReady says why a webhook would be refused, "" when it would not.
	NotReady   string
	WebhookURL string // really bound; "" = not known

	State     string // of Callgoose: up, down, held, unknown
	Since     *time.Time
	LastError string

	Queued                             int64
	OldestQueuedAt                     *time.Time
	Discarded, Dead, Truncated, Damage int64
	UsedBytes, MaxBytes, FreeBytes     int64

	Sources []Source
}

// Source is one PMM server as the service knows it.
type Source struct {
	Name        string
	LastHeardAt *time.Time
	SilentSince *time.Time
}

// examination is one run.
type examination struct {
	Config
	Report
}

// Run examines everything. It takes seconds, and as long as the timeouts when
// something hangs. Cancelling ctx cuts it short: what is left is skipped.
func Run(ctx context.Context, cfg Config) Report {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Severity == "" {
		cfg.Severity = "info"
	}
	if cfg.Proxy == nil {
		cfg.Proxy = http.ProxyFromEnvironment
	}
	e := &examination{Config: cfg, Report: Report{Findings: []Finding{}}}
	e.service()
	e.configuration()
	if e.Service != nil && e.Service.Remote {
		e.skip("its machine", "files, disk, intake and the way to Callgoose: run doctor on the machine of the service")
	} else {
		e.secrets()
		e.dataDir()
		e.disk()
		e.fsync()
		e.intake(ctx)
		e.callgoose(ctx)
	}
	e.waiting()
	e.consistent(ctx)
	e.heard()
	e.pmm(ctx)
	return e.Report
}
