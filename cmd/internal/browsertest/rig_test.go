package browsertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/app"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

const (
	callgooseToken = "cg-s3cr3t-0f-the-br0wser"
	operatorsToken = "op-s3cr3t-0f-the-br0wser"
	// patience is how long anything may take that a test waits for.
	patience = 20 * time.Second
	// beyond is a name that is not loopback to the browser, but leads there.
	beyond = "pmm-callgoose.test"
)

var chromium string

func TestMain(m *testing.M) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			chromium = p
			break
		}
	}
	os.Exit(m.Run())
}

// service is a whole forwarder with real listeners, and the fake Callgoose.
type service struct {
	t    *testing.T
	cfg  *config.Config
	fake *callgoosetest.Fake
	out  *callgoosetest.Server
	urls app.Addresses
	logs *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

func serve(t *testing.T, change func(*config.Config)) *service {
	t.Helper()
	if chromium == "" {
		t.Skip("there is no Chromium on this machine: apt-get install chromium")
	}
	s := &service{t: t, logs: &safeBuffer{}, fake: callgoosetest.New(callgoosetest.Config{
		KeepBodies: true, Tokens: []string{callgooseToken}, Filters: filters.Recommended(),
	})}
	var err error
	if s.out, err = s.fake.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.out.Close() })
	s.cfg = &config.Config{
		Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", DataDir: t.TempDir(),
		CallgooseURL: s.out.URL(), CallgooseToken: config.NewSecret(callgooseToken),
		CallgooseAuth: "bearer", CallgooseFrom: "PerconaPMM", IncidentBy: "alert", OnBacklog: "deliver",
		RetryMin: 100 * time.Millisecond, RetryMax: time.Second, RetryFor: 72 * time.Hour, Timeout: 5 * time.Second,
		LateAfter: 5 * time.Minute, Concurrency: 16, MaxBody: 10 << 20, MaxStore: 2 << 30, AlarmAfter: time.Hour,
	}
	if change != nil {
		change(s.cfg)
	}
	ready := make(chan app.Addresses, 1)
	a, err := app.New(s.cfg, app.Options{
		Version: "1.0.0-test", NoSync: true, Ready: func(a app.Addresses) { ready <- a },
		Logger: slog.New(slog.NewTextHandler(s.logs, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, secret := range []string{callgooseToken, operatorsToken} {
			if strings.Contains(s.logs.String(), secret) {
				t.Error("a secret stands in the log")
			}
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.logs)
		}
	})
	select {
	case s.urls = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return s
}

type labels map[string]string

// alert is one member of a body of PMM.
type alert struct {
	Status      string    `json:"status"`
	Labels      labels    `json:"labels"`
	Annotations labels    `json:"annotations,omitempty"`
	StartsAt    time.Time `json:"startsAt"`
	EndsAt      time.Time `json:"endsAt,omitzero"`
	Generator   string    `json:"generatorURL,omitempty"`
}

func down(n int) alert {
	return alert{
		Status: "firing", StartsAt: time.Now().Add(-time.Minute).UTC(),
		Labels: labels{
			"alertname": []string{"MySQL down", "MySQL replication lag", "PostgreSQL connections in use", "Node low free memory"}[n%4],
			"severity":  []string{"critical", "warning"}[n%2], "instance": fmt.Sprintf("mysql-%02d:3306", n), "environment": "production",
		},
		Annotations: labels{"summary": "It does not answer", "runbook_url": "https://wiki.example/runbook"},
		Generator:   "https://pmm.example/graph/alerting/grafana/pmm_mysql_down/view",
	}
}

func resolved(a alert) alert {
	a.Status, a.EndsAt = "resolved", time.Now().UTC()
	return a
}

// post is PMM sending alerts; it demands the 202.
func (s *service) post(alerts ...alert) {
	s.t.Helper()
	b, err := json.Marshal(map[string]any{
		"receiver": "callgoose", "status": "firing", "version": "1", "groupKey": `{}:{alertname="x"}`,
		"groupLabels": labels{}, "commonLabels": labels{}, "alerts": alerts, "truncatedAlerts": 0,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.Post(s.urls.Webhooks, "application/json", bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		s.t.Fatalf("the webhook was answered %d", resp.StatusCode)
	}
}

// until waits for a state of the service.
func (s *service) until(what string, ok func(admin.Status) bool) {
	s.t.Helper()
	client := admin.NewSocketClient(s.cfg.DataDir)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := client.Status(ctx)
		if err == nil && ok(st) {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("waited in vain for: %s; the last state was %+v", what, st)
		case <-tick.C:
		}
	}
}

func (s *service) settled(n int64) {
	s.t.Helper()
	s.until("everything settled", func(st admin.Status) bool { return st.Queued == 0 && st.InFlight == 0 && st.Alerts >= n })
}

// browser is one Chromium with a profile of its own.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string
	noJS bool

	mu       sync.Mutex
	problems []string // what the browser complained of, guarded by mu
}

// look is how the page is looked at.
type look struct {
	width, height int64
	dark, noJS    bool
}

func open(t *testing.T, base string, l look) *browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true), chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 900),
		chromedp.Flag("host-resolver-rules", "MAP "+beyond+" 127.0.0.1"), chromedp.WSURLReadTimeout(time.Minute),
		chromedp.Flag("hide-scrollbars", true),
	)
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(alloc)
	b := &browser{t: t, ctx: ctx, base: strings.TrimSuffix(base, "/"), noJS: l.noJS}
	t.Cleanup(func() {
		// Ends the browser and waits for it.
		_ = chromedp.Cancel(ctx)
		cancel()
		stop()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.problems {
			t.Errorf("the browser complained: %s", p)
		}
	})
	chromedp.ListenTarget(ctx, func(ev any) {
		text := ""
		switch e := ev.(type) {
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.LevelError {
				text = e.Entry.Text + " " + e.Entry.URL
			}
		case *runtime.EventExceptionThrown:
			text = "exception: " + e.ExceptionDetails.Error()
		case *runtime.EventConsoleAPICalled:
			text = "console: " + string(e.Type)
		case *page.EventJavascriptDialogOpening:
			text = "dialog: " + e.Message
		}
		// Over plain HTTP a browser says that it ignores this header.
		if strings.HasPrefix(text, "The Cross-Origin-Opener-Policy header has been ignored") {
			text = ""
		}
		// An answer of 4xx is what some tests are about.
		if text != "" && !strings.Contains(text, "the server responded with a status of") && !strings.Contains(text, "ERR_INCOMPLETE_CHUNKED_ENCODING") {
			b.mu.Lock()
			b.problems = append(b.problems, text)
			b.mu.Unlock()
		}
	})
	b.do(cdplog.Enable(), network.Enable(), runtime.Enable(), page.Enable(), emulation.SetScriptExecutionDisabled(l.noJS))
	b.look(l)
	return b
}

// look changes how the page is looked at.
func (b *browser) look(l look) {
	b.t.Helper()
	if l.width == 0 {
		l.width = 1280
	}
	if l.height == 0 {
		l.height = 900
	}
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	b.do(
		emulation.SetDeviceMetricsOverride(l.width, l.height, 1, l.width < 500),
		// A colour on its way from one palette to the other is not one to be read.
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}),
	)
}

func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	// The first run must not have a deadline: the browser would end with it.
	if chromedp.FromContext(b.ctx).Target == nil {
		if err := chromedp.Run(b.ctx, actions...); err != nil {
			b.t.Fatal(err)
		}
		return
	}
	if err := chromedp.Run(ctx, actions...); err != nil {
		var where string
		_ = chromedp.Run(b.ctx, chromedp.Location(&where))
		b.t.Fatalf("at %s: %v", where, err)
	}
}

func (b *browser) goTo(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base+path), chromedp.WaitReady("main"))
}

// text is the text of the first element of a selector.
func (b *browser) text(sel string) (s string) {
	b.t.Helper()
	b.do(chromedp.Text(sel, &s, chromedp.ByQuery))
	return strings.Join(strings.Fields(s), " ")
}

// eval needs scripts of the debugger only: it works with those of pages off.
func eval[T any](b *browser, js string) (v T) {
	b.t.Helper()
	b.do(chromedp.Evaluate(js, &v, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return v
}

// sees waits until the text of an element holds what is wanted.
func (b *browser) sees(sel, want string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	js := fmt.Sprintf(`(document.querySelector(%q)||{innerText:''}).innerText.replace(/\s+/g,' ')`, sel)
	got := ""
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		// While a page is on its way there is nothing to ask.
		if err := chromedp.Run(ctx, chromedp.Evaluate(js, &got)); err == nil && strings.Contains(got, want) {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("%s never showed %q, but %q; at %s stands:\n%s", sel, want, got, b.where(), b.text("body"))
		case <-tick.C:
		}
	}
}

// click waits for the page it leads to.
func (b *browser) click(sel string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(sel, chromedp.ByQuery)); err != nil {
		b.t.Fatalf("click %s: %v", sel, err)
	}
	b.do(chromedp.WaitReady("main"))
}

func (b *browser) where() string {
	b.t.Helper()
	var s string
	b.do(chromedp.Location(&s))
	u, err := url.Parse(s)
	if err != nil {
		b.t.Fatal(err)
	}
	return u.RequestURI()
}

// picture saves the whole page, when somebody wants to look at it.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("PMM_CALLGOOSE_SCREENSHOTS")
	if dir == "" {
		return
	}
	var png []byte
	b.do(chromedp.FullScreenshot(&png, 100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// violations are what axe-core finds on the page, none without it: PMM_CALLGOOSE_AXE names
// its axe.min.js (npm pack axe-core).
func (b *browser) violations() []string {
	b.t.Helper()
	file := os.Getenv("PMM_CALLGOOSE_AXE")
	if file == "" || b.noJS {
		return nil
	}
	code, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.Evaluate(string(code)+";0", nil))
	return eval[[]string](b, `axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations.map((v) => v.id + ' ' + v.impact + ': ' + v.nodes.map((n) => n.target).join(' | ')))`)
}

// legible demands of the page shown that all of it can be read, in every look.
func (b *browser) legible(name string) {
	b.t.Helper()
	for suffix, l := range map[string]look{"light": {}, "dark": {dark: true}, "phone": {width: 360, height: 780}, "wide": {width: 2200, height: 1000}} {
		b.look(l)
		b.picture(name + "-" + suffix)
		if w := eval[int64](b, "document.documentElement.scrollWidth"); l.width != 0 && w > l.width {
			b.t.Errorf("%s is %d pixels wide on a screen of %d", name, w, l.width)
		}
		if bad := eval[[]string](b, contrast); len(bad) > 0 {
			b.t.Errorf("%s (%s): too little contrast: %q", name, suffix, bad)
		}
		if bad := b.violations(); len(bad) > 0 {
			b.t.Errorf("%s (%s): axe finds %q", name, suffix, bad)
		}
	}
	b.look(look{})
}
