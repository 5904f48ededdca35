package doctor

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/queue"
)

// Config is what is checked, and how.
type Config struct {
	// Settings are those of the running service, else those that serve would
	// have. Required.
	Settings *config.Config
	// Problems and Warnings are what config.Load said of them.
	Problems config.Problems
	Warnings []config.Warning

	// Service is what a running service says of itself; nil when there is none,
	// and NoService says why it could not be asked, Start how it is started.
	Service   *Service
	NoService string
	Stuck     bool // one is there, and does not answer
	Start     string

	// Consistent has the service compare queue and ledger, and its settings with those of
	// a start now. An error says why it could not; nil = no service can.
	Consistent func(context.Context) (admin.Check, error)

	// NATS checks the external servers; nil = the store is embedded.
	NATS func(context.Context) queue.Examined

	PMM PMM

	// Proxy chooses the proxy towards Callgoose; nil = that of the environment.
	Proxy func(*http.Request) (*url.URL, error)
}

// timeout bounds each step of a connection.
const timeout = 10 * time.Second

// Service is a running service: what it says of itself, and where it was asked.
type Service struct {
	admin.Status
	Where  string
	Remote bool // it runs on another machine
	// NotReady says why a webhook would be refused, "" when it would not.
	NotReady string
}

// examination is one run.
type examination struct {
	Config
	Report
}

// Run examines everything. It takes seconds, and ten seconds more for each thing that
// hangs. Cancelling ctx cuts it short: what is left is skipped.
func Run(ctx context.Context, cfg Config) Report {
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
		e.certificates()
		e.callgoose(ctx)
	}
	e.nats(ctx)
	e.cluster()
	e.status()
	e.consistent(ctx)
	e.heard()
	e.pmm(ctx)
	return e.Report
}
