package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest"
	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

func (p *program) sendTestCommand() *cli.Command {
	return &cli.Command{
		Name:  "send-test",
		Usage: "send a firing alert and then its recovery through the running service, and report each hop; opens an incident and closes it",
		Flags: clientFlags(
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "how long to wait for Callgoose's answer to each of the two"},
			&cli.StringFlag{Name: "severity", Value: "info", Usage: "severity of the alert: which of your filters it meets, and so whom it calls"},
			&cli.StringFlag{Name: "source", Value: "pmm", Usage: "the PMM server that it pretends to come from"},
			&cli.BoolFlag{Name: "fallback", Usage: "send a test message by --fallback-webhook-file and --fallback-command instead; Callgoose gets nothing"},
		),
		Action: p.asking(p.sendTest),
	}
}

func (p *program) sendTest(c *cli.Context, client *admin.Client) error {
	if !ingest.ValidSource(c.String("source")) {
		return usagef("--source: %q is not 1 to 16 of a-z, 0-9 and -", c.String("source"))
	}
	if c.Duration("timeout") <= 0 {
		return usagef("--timeout must be longer than zero")
	}
	if c.Bool("fallback") {
		return p.testFallback(c, client)
	}
	s, err := client.Status(c.Context)
	if err != nil {
		return err
	}
	t := newTest(client, c.String("source"), c.String("severity"), c.Duration("timeout"))
	if t.intake, err = p.findIntake(c, client, s); err != nil {
		t.Via, t.Note = "admin", fmt.Sprintf("the webhook address was left out: %s", err)
	} else {
		t.Via, t.Webhook = "webhook", t.intake.url+"/"+t.source
	}
	t.run(c.Context)
	if err := p.show(c, t, func() { p.showTest(t) }); err != nil || t.OK {
		return err
	}
	return errors.New(t.Problem)
}

// testFallback sends a test message by the other way out.
func (p *program) testFallback(c *cli.Context, client *admin.Client) error {
	ways, err := admin.Ask[[]admin.Way](c.Context, client, "POST /api/v1/fallback/test", nil)
	if err != nil {
		return err
	}
	failed := 0
	var rows [][]string
	for _, w := range ways {
		row := []string{"ok", w.Name, "a test message was taken"}
		if !w.OK {
			failed++
			row = []string{"FAIL", w.Name, w.Error}
		}
		rows = append(rows, row)
	}
	err = p.show(c, ways, func() { p.table(nil, rows) })
	if err != nil || failed == 0 {
		return err
	}
	err = fmt.Errorf("%d of %s not work", failed, text.Plural(len(ways), "way does", "ways do"))
	if failed < len(ways) {
		err = partialError{err}
	}
	return err
}

func (p *program) showTest(t *test) {
	var rows [][]string
	for _, h := range t.Hops {
		mark := "ok"
		if !h.OK {
			mark = "FAIL"
		}
		rows = append(rows, []string{mark, fmt.Sprintf("%.0f ms", h.At), h.Alert, h.Step, h.Text})
	}
	p.table([]string{"", "AFTER", "ALERT", "STEP", "RESULT"}, rows)
	if t.Note != "" {
		fmt.Fprintln(p.out, "note:", text.Line(t.Note))
	}
	for _, line := range t.Fix {
		fmt.Fprintln(p.out, text.Line(line))
	}
	if t.OK {
		fmt.Fprintf(p.out, "The whole way works: incident %s was opened and closed.\n", t.Incident)
	}
}

// hop is one step of the way, done or failed.
type hop struct {
	Alert  string  `json:"alert"` // firing, resolved
	Step   string  `json:"step"`  // accepted, queued, delivered
	OK     bool    `json:"ok"`
	At     float64 `json:"at_ms"`   // since the test began
	Took   float64 `json:"took_ms"` // of the request, where the step is one
	Status int     `json:"http_status,omitempty"`
	Effect string  `json:"effect,omitempty"` // created, resolved, discarded, …
	Text   string  `json:"text"`
}

// test is one firing alert and its recovery on their way through the service.
type test struct {
	OK       bool     `json:"ok"`
	Via      string   `json:"via"` // webhook, or admin when that cannot be used
	Webhook  string   `json:"webhook,omitempty"`
	Incident string   `json:"incident_key"`
	Hops     []hop    `json:"hops"`
	Problem  string   `json:"problem,omitempty"` // the first that went wrong
	Note     string   `json:"note,omitempty"`
	Fix      []string `json:"fix,omitempty"`

	client   *admin.Client
	intake   *intake // nil = through the operators' socket
	source   string
	severity string
	timeout  time.Duration
	began    time.Time
	alert    worker.OwnAlert
}

func newTest(client *admin.Client, source, severity string, timeout time.Duration) *test {
	nonce := make([]byte, 4)
	_, _ = rand.Read(nonce) // never fails
	now := time.Now()
	t := &test{client: client, source: source, severity: severity, timeout: timeout, began: now, alert: worker.OwnAlert{
		Status: event.Firing, StartsAt: now.UTC(),
		// The instance is unique: filters that map on the alert's name see it too.
		Labels: map[string]string{
			"alertname": "pmm-callgoose test", "severity": severity, "instance": "test-" + hex.EncodeToString(nonce), worker.OurLabel: "test",
		},
		Annotations: map[string]string{
			"summary": "a test, nothing is wrong", "description": "Sent by pmm-callgoose send-test. Its recovery follows at once.",
		},
	}}
	t.Incident = event.Key(source, pmm.Fingerprint(t.alert.Labels))
	return t
}

// fail remembers the first problem.
func (t *test) fail(problem string, fix ...string) {
	if t.Problem == "" {
		t.Problem, t.Fix = problem, fix
	}
}

// run sends both. The recovery is sent whenever the firing alert may have been
// accepted, also after an interruption: no incident is left open if it can be helped.
func (t *test) run(ctx context.Context) {
	if !t.accept(ctx) {
		return
	}
	t.follow(ctx)
	t.alert.Status, t.alert.EndsAt = event.Resolved, time.Now().UTC()
	if ctx.Err() != nil {
		t.fail("interrupted; the recovery was sent anyway")
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		t.accept(clean)
		return
	}
	if t.accept(ctx) && t.Problem == "" {
		t.follow(ctx)
	}
	t.OK = t.Problem == ""
}

func (t *test) hop(h hop) {
	h.Alert, h.At = string(t.alert.Status), ms(time.Since(t.began))
	t.Hops = append(t.Hops, h)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// accept hands the alert over. It reports whether it can be on its way.
func (t *test) accept(ctx context.Context) bool {
	body, err := t.alert.Body()
	if err != nil {
		t.fail(err.Error())
		return false
	}
	if t.intake == nil {
		return t.carry(ctx, body)
	}
	start := time.Now()
	id, status, err := t.intake.post(ctx, t.source, body)
	h := hop{Step: "accepted", OK: err == nil, Took: ms(time.Since(start)), Status: status}
	switch {
	case err == nil:
		h.Text = fmt.Sprintf("202 in %.0f ms, notification %s, by %s", h.Took, id, t.Webhook)
	case status == 0:
		h.Text = fmt.Sprintf("no answer from %s: %v", t.Webhook, err)
		t.fail(h.Text, "The service runs, so this is between here and its webhook address: see pmm-callgoose doctor.")
	default:
		h.Text = fmt.Sprintf("%s answered %d: %v", t.Webhook, status, err)
		t.fail(h.Text, intakeFix(status))
	}
	t.hop(h)
	return err == nil || status == 0 && ctx.Err() != nil // interrupted: it may have got there
}

// carry hands the alert over through the operators' address.
func (t *test) carry(ctx context.Context, body []byte) bool {
	start := time.Now()
	line, err := json.Marshal(admin.Carried{Kind: admin.KindNotification, ID: "send-test", Source: t.source, ReceivedAt: start.UTC(), Body: body})
	var done admin.Imported
	if err == nil {
		done, err = t.client.Import(ctx, bytes.NewReader(append(line, '\n')))
	}
	if err == nil && done.Error != "" {
		err = errors.New(strings.TrimSuffix(strings.TrimPrefix(done.Error, "line 1: "), "; the lines before it are stored"))
	}
	h := hop{Step: "accepted", OK: err == nil, Took: ms(time.Since(start))}
	if h.Text = fmt.Sprintf("stored in %.0f ms, through the operators' address", h.Took); err != nil {
		h.Text = "the service did not take it: " + err.Error()
		t.fail(h.Text, "See pmm-callgoose status, line store.")
	}
	t.hop(h)
	return err == nil
}

func intakeFix(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "The file of the intake's secret was changed after the service read it: send it SIGHUP. PMM gets the same answer."
	case http.StatusServiceUnavailable:
		return "The store takes nothing now: see pmm-callgoose status, line store. PMM gets the same answer."
	}
	return "PMM gets the same answer. deploy/docs/pmm.md#by-hand says what its contact point needs, pmm-callgoose doctor what it lacks."
}

// askEvery is how often the service is asked how far the event has come.
const askEvery = 10 * time.Millisecond

// follow waits until the event is settled, or until it is clear that it will not
// be soon.
func (t *test) follow(ctx context.Context) {
	waiting, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	// The first episode of a key that never was: its id is known beforehand.
	id := event.ID(t.Incident, t.alert.Status, event.EpisodeID(t.alert.StartsAt, 1))
	var d *admin.Detail // nil until it is queued
	isSettled, n := false, 0
	err := poll(waiting, askEvery, func() (bool, error) {
		now, err := t.client.Event(waiting, id)
		if err != nil && !errors.Is(err, admin.ErrNotFound) {
			return false, err
		}
		if err == nil {
			if d == nil {
				t.hop(hop{Step: "queued", OK: true, Text: "event " + id})
			}
			d = now
			isSettled = d.Outcome != event.Queued
		}
		n++
		return isSettled || n%10 == 0 && t.down(waiting, d), nil
	})
	switch {
	case isSettled:
		t.settled(d)
	case err == nil, ctx.Err() != nil: // told: Callgoose is away, or this was interrupted
	case waiting.Err() == nil:
		t.fail("the service cannot be asked any more: " + err.Error())
	case !t.down(ctx, d):
		t.hop(hop{Step: "delivered", Text: fmt.Sprintf("not settled within %s", t.timeout)})
		t.fail(fmt.Sprintf("no answer from Callgoose within %s; the test is safe in the queue", t.timeout),
			t.before(ctx, d))
	}
}

// before says what waits before the event, which is nil until it is queued.
func (t *test) before(ctx context.Context, d *admin.Detail) string {
	if d == nil {
		return "Its alert was not read yet: other notifications are before it. See pmm-callgoose status."
	}
	waiting, err := admin.Ask[[]json.RawMessage](ctx, t.client, "GET /api/v1/events", url.Values{
		"outcome": {string(event.Queued)}, "until": {d.ReceivedAt.Format(time.RFC3339Nano)}, "limit": {strconv.Itoa(admin.MaxLimit)},
	})
	switch {
	case err != nil:
		return "What waits before it cannot be asked: " + err.Error()
	case len(waiting) == 0:
		return "Nothing waits before it, so Callgoose is slow: see pmm-callgoose events show " + d.ID
	}
	return text.Plural(int64(len(waiting)), "event waits", "events wait") + " before it: pmm-callgoose status says when they are out; --timeout waits longer."
}

// down reports whether Callgoose's side or a pause keeps the event from going out. d is nil
// until the event is queued.
func (t *test) down(ctx context.Context, d *admin.Detail) bool {
	s, err := t.client.Status(ctx)
	if err != nil || d == nil {
		return false
	}
	away := slices.IndexFunc(s.Attention, func(a admin.Attention) bool {
		return slices.Contains([]string{admin.IsDown, admin.IsHeld, admin.IsPaused}, a.Code)
	})
	if away < 0 || s.Pause == nil && d.Tries == 0 && (s.Callgoose.Since == nil || s.Callgoose.Since.After(t.began)) {
		return false // or another event failed: this one will still be tried
	}
	a := s.Attention[away]
	t.hop(hop{Step: "delivered", Text: a.Text})
	t.fail(strings.TrimSuffix(a.Text, ".")+"; the test is safe in the queue", a.Fix)
	return true
}

// settled judges what became of the event. Only 201 and created, then 200 and
// resolved, prove the filters.
func (t *test) settled(d *admin.Detail) {
	h := hop{Step: "delivered"}
	if n := len(d.Attempts); n > 0 {
		last := d.Attempts[n-1]
		h.Status, h.Effect, h.Took = last.Status, last.Effect, ms(last.Duration)
	}
	firing := t.alert.Status == event.Firing
	retried := d.Tries > 1 && h.Effect == "duplicate" // its first answer was lost
	switch {
	case d.Outcome == event.Delivered && (retried || firing && h.Effect == "created" || !firing && h.Effect == "resolved"),
		d.Outcome == event.Delivered && h.Effect == "unknown" && (firing && h.Status == http.StatusCreated || !firing && h.Status == http.StatusOK):
		h.OK = true
		what := "incident closed"
		if firing {
			what = "incident opened"
		}
		h.Text = fmt.Sprintf("Callgoose answered %d in %.0f ms: %s", h.Status, h.Took, what)
	case d.Outcome == event.Discarded:
		h.Text = fmt.Sprintf("Callgoose answered 202 in %.0f ms: no filter matched, nothing was %s", h.Took, map[bool]string{true: "opened", false: "closed"}[firing])
		t.fail(h.Text, filterFix(firing, t.severity)...)
	case d.Outcome == event.Delivered:
		h.Text = fmt.Sprintf("Callgoose answered %d in %.0f ms with %q", h.Status, h.Took, h.Effect)
		if firing {
			t.fail(h.Text+": no incident was opened", filterFix(firing, t.severity)...)
		} else {
			t.fail(h.Text+": the incident may still be open", filterFix(firing, t.severity)...)
		}
	default:
		h.Text = fmt.Sprintf("%s: %s", d.Outcome, strings.TrimSpace(d.Reason+" "+d.LastError))
		t.fail(h.Text, "pmm-callgoose events show "+d.ID)
	}
	t.hop(h)
}

// filterFix says what to set in Callgoose when it answered, but a filter did not
// do its part: the trigger for a firing event, the resolve for a recovery. The
// names are those of Callgoose's form; those in quotes are typed with them.
func filterFix(firing bool, severity string) []string {
	lines := []string{"In Callgoose, in the API filters of the service that the token belongs to:"}
	row := func(field, value string) { lines = append(lines, fmt.Sprintf("  %-48s %s", field, value)) }
	if firing {
		row("Trigger: Payload JSON Key / Key Value Contains", `"status" / firing`)
		row("Trigger: second pair (or leave it empty)", fmt.Sprintf(`"severity" / %s`, severity))
		row("Map Incident With", `"incident_key"`)
		row("Incident Title From", `"title"`)
		row("Incident Description From", `"description"`)
	}
	row("Resolve (switch it on): key / contains", `"status" / resolved`)
	row("Resolve: Incident Mapped With", `"incident_key", as in Map Incident With`)
	if firing {
		return append(lines,
			fmt.Sprintf("The test had severity %s: a filter that asks for another one does not match it (--severity critical).", severity),
			"The filters right? Then the service is disabled or in maintenance, or the token belongs to another service.")
	}
	return append(lines, "Then close the test's incident by hand: its recovery has been used up.")
}
