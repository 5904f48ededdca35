package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest"
	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// pmmTimeout bounds one request to PMM. A pass makes four.
const pmmTimeout = 10 * time.Second

// maxShown bounds the differences that a pass made by hand answers with.
const maxShown = 2000

// reconciler compares one PMM with what is open of it; worker.PlanReconcile decides.
// What it decides is written as a notification, so that it has fsync, order and replay
// as any other: if we die before that, nothing has happened and it is decided again.
// What passes remember is in memory only, a restart costs an epoch.
type reconciler struct {
	app  *App
	at   config.PMM
	seen atomic.Pointer[reconciled] // nil = no pass yet

	mu     sync.Mutex // one pass at a time; guards the fields below
	asked  string     // the credentials that viewer asks with
	viewer *pmm.Viewer
	state  worker.ReconcileState
	rules  map[string]madeBy // of open episodes, by incident key
	failed bool              // it was logged that PMM cannot be read
}

// reconciled is what operators see of the last pass.
type reconciled struct {
	at   time.Time
	plan worker.ReconcilePlan
}

// madeBy is the rule that made an episode; the UID is empty where nothing tells it.
type madeBy struct {
	firing event.Position
	uid    string
}

func (a *App) makeReconcilers() {
	for _, at := range a.cfg.PMMURL {
		a.reconcilers = append(a.reconcilers, &reconciler{app: a, at: at, rules: map[string]madeBy{}})
	}
}

// run makes passes until ctx ends.
func (r *reconciler) run(ctx context.Context) {
	for ctx.Err() == nil {
		next := r.app.cfg.ReconcileEvery
		if c := r.app.core.Load(); c != nil && !c.leads() {
			next = r.follow()
		} else if plan, err := r.pass(ctx, worker.ReconcileOrder{}, false); err == nil {
			next = plan.Next
		} else if ctx.Err() == nil {
			r.app.log.Error("what was decided by comparing with PMM could not be stored", "source", r.at.Source, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(next):
		}
	}
}

// follow forgets what passes remember, because another instance makes them. It returns
// when to check again.
func (r *reconciler) follow() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = worker.ReconcileState{}
	return followEvery
}

// followEvery is how often a follower checks whether it leads.
const followEvery = 5 * time.Second

// pass reads PMM and then the ledger, decides, and unless dry does it.
func (r *reconciler) pass(ctx context.Context, order worker.ReconcileOrder, dry bool) (plan worker.ReconcilePlan, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.app.leader()
	if err != nil {
		return plan, err
	}
	began, last := time.Now(), c.queue.Last()
	in := worker.ReconcileInput{Order: order, Jitter: rand.Float64()} //nolint:gosec // it spreads requests
	if in.View, in.Err = r.read(ctx, c); ctx.Err() != nil {
		return plan, context.Cause(ctx)
	}
	if err := r.open(ctx, c, last, &in); err != nil {
		return plan, err
	}
	in.RefusedAt, in.Now = r.app.refused.last(r.at.Source), time.Now()
	cfg := r.app.cfg
	plan = worker.PlanReconcile(worker.ReconcileConfig{
		Source: r.at.Source, Mode: worker.ReconcileMode(cfg.Reconcile), Contact: cfg.ContactPoint,
		Every: cfg.ReconcileEvery, CloseAfter: cfg.ReconcileCloseAfter, Limit: cfg.ReconcileLimit,
	}, r.state, in)
	if dry {
		return plan, nil
	}
	r.state = plan.State
	r.seen.Store(&reconciled{in.Now, plan})
	r.tell(in.Err)
	return plan, r.apply(ctx, c, began, &plan)
}

// read asks PMM. Its viewer is made anew when the credentials changed.
func (r *reconciler) read(ctx context.Context, c *core) (*pmm.View, error) {
	cfg := r.app.cfg
	open := map[string]bool{}
	if err := c.ledger.View(func(tx *store.Tx) {
		for ep := range tx.OpenEpisodes(r.at.Source, "") {
			open[event.Fingerprint(ep.Key)] = true
		}
	}); err != nil {
		return nil, err
	}
	token := ""
	if own := ingest.TokensOf(cfg.PMMToken.Reveal(), r.at.Source); len(own) > 0 {
		token = own[len(own)-1]
	}
	if asked := token + "\n" + cfg.PMMBasicAuth.Reveal(); r.viewer == nil || asked != r.asked {
		client, err := pmm.NewClient(pmm.ClientConfig{
			URL: r.at.URL, Token: token, Basic: cfg.PMMBasicAuth.Reveal(), CAFile: cfg.PMMCA, InsecureSkipVerify: cfg.PMMInsecureSkipVerify,
			Timeout: pmmTimeout, Transport: r.app.opts.PMM,
		})
		if err != nil {
			return nil, err
		}
		r.viewer, r.asked = pmm.NewViewer(client, cfg.ContactPoint), asked
	}
	view, err := r.viewer.Read(ctx, func(fingerprint string) bool { return open[fingerprint] })
	if err == nil {
		return &view, nil
	}
	for _, s := range []*config.Secret{cfg.PMMToken, cfg.PMMBasicAuth} { // the file may be a new one
		_, _ = s.Reload()
	}
	return nil, err
}

// open reads the open episodes of the source into in, and whether what was stored up
// to last is decided on.
func (r *reconciler) open(ctx context.Context, c *core, last uint64, in *worker.ReconcileInput) error {
	var episodes []*store.Episode
	if err := c.ledger.View(func(tx *store.Tx) {
		in.Behind = !worker.Decided(tx, last)
		queued := map[string]bool{}
		for w := range tx.Waiting(event.Position{}) {
			queued[w.Key] = true
		}
		for ep := range tx.OpenEpisodes(r.at.Source, "") {
			labels := tx.Labels(ep.Key)
			e := worker.ReconcileEpisode{
				Key: ep.Key, Fingerprint: event.Fingerprint(ep.Key), Title: ep.Alertname, StartsAt: ep.StartsAt, HeardAt: ep.NamedAt,
				Queued: queued[ep.Key], Made: labels[worker.OurLabel] != "", Template: labels["percona_alerting"] == "1",
			}
			if e.Fingerprint == pmm.Fingerprint(labels) { // PMM's covers labels that its webhooks do not have
				e.Labels = labels
			}
			episodes, in.Open = append(episodes, ep), append(in.Open, e)
		}
	}); err != nil {
		return err
	}
	known := make(map[string]madeBy, len(episodes))
	for i, ep := range episodes {
		made, ok := r.rules[ep.Key]
		if !ok || made.firing != ep.Firing {
			made = madeBy{ep.Firing, c.rule(ctx, ep.Firing)}
		}
		if in.View != nil && made.uid == "" {
			made.uid = in.View.Alerts[in.Open[i].Fingerprint].RuleUID
		}
		known[ep.Key], in.Open[i].RuleUID = made, made.uid
	}
	r.rules = known
	return nil
}

// rule is the UID of the rule that made the stored alert at pos, "" = nothing tells it.
func (c *core) rule(ctx context.Context, pos event.Position) string {
	raw, err := c.builder.Raw(ctx, &event.Record{Pos: pos})
	var said struct{ RuleUID, GeneratorURL string }
	if err != nil || json.Unmarshal(raw, &said) != nil {
		return ""
	}
	return pmm.RuleUID(said.RuleUID, said.GeneratorURL)
}

// apply stores what was decided. began is when the lists were begun to be read: a
// webhook that came after that knows better, and the splitter leaves the decision out.
func (r *reconciler) apply(ctx context.Context, c *core, began time.Time, plan *worker.ReconcilePlan) error {
	for _, act := range plan.Open {
		if err := r.act(ctx, c, began, "opened", act, nil); err != nil {
			return err
		}
	}
	for _, act := range plan.Close {
		firing, err := c.builder.Raw(ctx, &event.Record{Pos: r.rules[act.Key].firing})
		if err == nil || event.Unreadable(err) {
			err = r.act(ctx, c, began, "closed", act, firing)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reconciler) act(ctx context.Context, c *core, began time.Time, action string, act worker.ReconcileAct, firing []byte) error {
	body, err := act.Body(firing)
	if err == nil {
		_, err = c.queue.Publish(ctx, event.Notification{
			Source: r.at.Source, Origin: event.Reconciled, BeganAt: began.UTC(), ReceivedAt: time.Now().UTC(), Body: body, Alerts: 1,
		})
	}
	if err != nil {
		return fmt.Errorf("incident %s, to be %s: %w", act.Key, action, err)
	}
	r.app.opts.metrics.Reconciled(action)
	r.app.log.Warn("PMM has the last word: an incident is opened or closed", "action", action, "event_key", act.Key, "alertname", act.Title, "why", act.Why)
	return nil
}

// tell counts the pass, and logs a change between passes that see and those that do not.
func (r *reconciler) tell(failed error) {
	seen := r.seen.Load().plan
	drift := map[string]int{}
	for _, d := range seen.Drift {
		drift[d.Kind]++
	}
	result := "ok"
	switch {
	case failed != nil:
		result = "failed"
	case seen.Skipped != "":
		result = "skipped"
	}
	failing := seen.State.Contact != nil && seen.State.Contact.LastError != ""
	r.app.opts.metrics.ReconcilePass(r.at.Source, result, drift, failing)
	switch {
	case failed != nil && !r.failed:
		r.app.log.Warn("PMM cannot be read, so it is not compared with what is open; delivery goes on", "source", r.at.Source, "err", failed)
	case failed == nil && r.failed:
		r.app.log.Info("PMM can be read again", "source", r.at.Source)
	}
	r.failed = failed != nil
}

// addReconcile puts into list how comparing with each PMM goes.
func (a *App) addReconcile(list []admin.PMM) []admin.PMM {
	for _, r := range a.reconcilers {
		i := slices.IndexFunc(list, func(p admin.PMM) bool { return p.Name == r.at.Source })
		if i < 0 {
			i = len(list)
			list = append(list, admin.PMM{Name: r.at.Source})
		}
		p := &list[i]
		p.Reconcile = &admin.Reconcile{Mode: a.cfg.Reconcile, Alarms: []worker.ReconcileAlarm{}, Differences: []worker.ReconcileDrift{}}
		seen := r.seen.Load()
		if seen == nil {
			continue
		}
		state := seen.plan.State
		p.Drift, p.Reconcile.Differences = new(int64(len(seen.plan.Drift))), first(seen.plan.Drift, admin.MaxDrift)
		p.Reconcile.LastPassAt, p.Reconcile.Failures, p.Reconcile.Skipped = timeOrNil(seen.at), state.Failures, seen.plan.Skipped
		p.Reconcile.Alarms = append(p.Reconcile.Alarms, seen.plan.Alarms...)
		if state.Contact != nil {
			p.Reconcile.ContactLastAttemptAt, p.Reconcile.ContactLastError = timeOrNil(state.Contact.LastAttempt), state.Contact.LastError
		}
	}
	return list
}

// differing is what comparing found that a person should look at.
func differing(list []admin.PMM) (out []admin.Attention) {
	for _, p := range list {
		if p.Reconcile == nil {
			continue
		}
		for _, a := range p.Reconcile.Alarms {
			out = append(out, admin.Attention{Code: a.Code, Level: admin.Bad, Text: "PMM " + p.Name + ": " + a.Text + ".", Fix: a.Way})
		}
		if p.Drift != nil && *p.Drift > 0 {
			out = append(out, admin.Attention{
				Code: "drift", Level: admin.Odd, Fix: "pmm-callgoose reconcile --dry-run says what they are.",
				Text: fmt.Sprintf("PMM %s and the open incidents differ in %s.", p.Name, text.Plural(*p.Drift, "alert", "alerts")),
			})
		}
	}
	return out
}

// first are the first so many, never nil: they stand in a JSON answer.
func first[T any](list []T, most int) []T { return append([]T{}, list[:min(len(list), most)]...) }

// errNotAsked says that there is no PMM to compare with.
var errNotAsked = errors.New("no PMM is asked: serve needs --pmm-url and --pmm-token-file")

// Reconcile implements web.Source: one pass over each PMM, or over those of the keys.
func (a *App) Reconcile(ctx context.Context, req admin.ReconcileRequest) ([]admin.ReconcilePass, error) {
	orders, err := a.orders(req)
	if err != nil {
		return nil, err
	}
	var asked []*reconciler
	for _, r := range a.reconcilers {
		if orders[r.at.Source] != nil || len(req.Keys) == 0 {
			asked = append(asked, r)
		}
	}
	out, errs := make([]admin.ReconcilePass, len(asked)), make([]error, len(asked))
	var wg sync.WaitGroup
	for i, r := range asked {
		wg.Go(func() { out[i], errs[i] = r.byHand(ctx, req, orders[r.at.Source]) })
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

// orders are the keys of a request by their source.
func (a *App) orders(req admin.ReconcileRequest) (map[string][]string, error) {
	c := a.core.Load()
	switch {
	case c == nil:
		return nil, a.whyClosed()
	case len(a.reconcilers) == 0:
		return nil, errNotAsked
	}
	orders := map[string][]string{}
	return orders, c.ledger.View(func(tx *store.Tx) {
		for _, key := range req.Keys {
			ep := tx.Episode(key)
			switch {
			case ep == nil || !ep.Open:
				tx.Fail(fmt.Errorf("%w: no alert is open under %s", admin.ErrNotFound, key))
			case !slices.ContainsFunc(a.reconcilers, func(r *reconciler) bool { return r.at.Source == ep.Source }):
				tx.Fail(fmt.Errorf("%w: %s is of the PMM %s, which is not asked (--pmm-url %s=URL)", admin.ErrNotFound, key, ep.Source, ep.Source))
			default:
				orders[ep.Source] = append(orders[ep.Source], key)
			}
		}
	})
}

func (r *reconciler) byHand(ctx context.Context, req admin.ReconcileRequest, keys []string) (out admin.ReconcilePass, err error) {
	plan, err := r.pass(ctx, worker.ReconcileOrder{Yes: req.Yes, Keys: keys}, req.DryRun)
	if err != nil {
		return out, err
	}
	return admin.ReconcilePass{
		Source: r.at.Source, DryRun: req.DryRun, Open: first(plan.Open, maxShown), Close: first(plan.Close, maxShown),
		Drift: first(plan.Drift, maxShown), Alarms: first(plan.Alarms, maxShown), Refused: plan.Refused, Skipped: plan.Skipped,
	}, nil
}
