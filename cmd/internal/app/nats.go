package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/queue"
)

// overNATS adds to q what cfg says of external servers.
func overNATS(cfg *config.Config, log *slog.Logger, q queue.Config) queue.Config {
	q.URL, q.Replicas = cfg.NATS(), cfg.NATSReplicas
	q.Name, q.Instance, q.TakeOverAfter, q.Settings = cfg.NATSName, cfg.InstanceName(), cfg.TakeOverAfter, cfg.Digests()
	q.Creds, q.User = again(cfg.NATSCreds, log), again(cfg.NATSUser, log)
	q.CAFile, q.CertFile, q.KeyFile = cfg.NATSCA, cfg.NATSCert, cfg.NATSKey
	q.Monitor = strings.FieldsFunc(cfg.NATSMonitor.Reveal(), func(r rune) bool { return r == ',' || r == ' ' })
	return q
}

// again returns what reads a secret whenever it is asked, nil when there is none.
func again(s *config.Secret, log *slog.Logger) func() string {
	if !s.IsSet() {
		return nil
	}
	var last atomic.Pointer[string] // the error that was logged
	return func() string {
		_, err := s.Reload()
		if err == nil {
			last.Store(nil)
		} else if text := err.Error(); last.Load() == nil || *last.Load() != text {
			last.Store(&text)
			log.Error("a secret cannot be read again, the old one stays", "component", "app", "setting", s.Name(), "err", err)
		}
		return s.Reveal()
	}
}

// openFirst opens the store at the start. External servers that do not answer are
// waited for: then there is no core yet, and no error either.
func (a *App) openFirst(ctx context.Context) (*core, error) {
	c, err := a.open(ctx)
	switch {
	case err == nil:
		a.core.Store(c)
	case a.cfg.NATS() == "" || !errors.Is(err, queue.ErrUnavailable):
		return nil, err
	case ctx.Err() != nil: // stopped meanwhile
		return nil, ctx.Err()
	default:
		a.log.Error("the NATS servers cannot be used yet; webhooks are refused with 503 until they can", "err", err)
		a.problem.Store(&err)
	}
	return c, nil
}

// await is the core, as soon as it is there; nil when it does not come before ctx ends. PMM
// would not send a webhook again for minutes, so one that comes during a start waits for its
// end, and with external servers as long as they do not answer.
func (a *App) await(ctx context.Context) *core {
	if a.cfg.NATS() == "" {
		select {
		case <-a.opened:
		case <-ctx.Done():
		}
		return a.core.Load()
	}
	for {
		if c := a.core.Load(); c != nil || !pause(ctx, 50*time.Millisecond) {
			return c
		}
	}
}

// ExamineNATS looks at the external servers for doctor.
func ExamineNATS(ctx context.Context, cfg *config.Config) queue.Examined {
	return queue.Examine(ctx, overNATS(cfg, slog.New(slog.DiscardHandler), queue.Config{}))
}
