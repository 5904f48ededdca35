package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// What changes the ledger is asked of the instance that leads. The question is an
// ordinary message, of which nothing is stored.
const leaderAsk = "pmm-callgoose.leader.ask"

// askAgain is when a question that nobody heard is asked again.
const askAgain = time.Second

// Ask brings a question to the instance that leads. It is asked again once where nobody
// heard it: without an answer it may have been done, and must not be done twice.
func (l *Log) Ask(ctx context.Context, question []byte) ([]byte, error) {
	if err := l.q.silent(); err != nil {
		return nil, err
	}
	subject := l.q.cfg.subject(leaderAsk)
	m, err := l.q.nc.RequestWithContext(ctx, subject, question)
	if errors.Is(err, nats.ErrNoResponders) && sleep(ctx, l.q.stop, askAgain) {
		m, err = l.q.nc.RequestWithContext(ctx, subject, question)
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, errors.New("no instance leads at the moment: try again in some seconds")
	case err != nil:
		return nil, fmt.Errorf("the instance that leads did not answer; it may have done it (pmm-callgoose status): %w", err)
	}
	return m.Data, nil
}

// Answer answers the questions of other instances while this one leads, until ctx ends.
func (l *Log) Answer(ctx context.Context, answer func(context.Context, []byte) ([]byte, error)) error {
	subject := l.q.cfg.subject(leaderAsk)
	heard, err := l.q.nc.Subscribe(subject, func(m *nats.Msg) {
		go func() {
			if !l.Holds() {
				return // another one leads, and answers
			}
			data, err := answer(ctx, m.Data)
			if err == nil {
				err = m.Respond(data)
			}
			if err != nil {
				l.log.Warn("a question of another instance is not answered", "err", err)
			}
		}()
	})
	if err != nil {
		return fmt.Errorf("%w: subscribe to %s: %w", ErrUnavailable, subject, err)
	}
	<-ctx.Done()
	_ = heard.Unsubscribe()
	return nil
}
