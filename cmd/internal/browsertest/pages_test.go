package browsertest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

// filled is a service that has seen something of everything: 16 delivered, 2
// suppressed, 3 dead.
func filled(t *testing.T) *service {
	t.Helper()
	s := serve(t, nil)
	for n := range 14 {
		s.post(down(n))
	}
	s.settled(14)
	s.post(resolved(down(3)), resolved(down(5)))
	s.post(down(1), down(2))
	s.settled(18)
	s.fake.FailNext(3, callgoosetest.Failure{Mode: callgoosetest.Status, Status: http.StatusUnprocessableEntity})
	s.post(down(20), down(21), down(22))
	s.settled(21)
	return s
}

func (s *service) list(outcome string) []*event.Record {
	s.t.Helper()
	list, err := admin.Ask[[]*event.Record](context.Background(), admin.NewSocketClient(s.cfg.DataDir), "GET /api/v1/events", map[string][]string{"outcome": {outcome}})
	if err != nil || len(list) == 0 {
		s.t.Fatal(err, len(list))
	}
	return list
}

// contrast lists texts that stand out too little from what is behind them.
const contrast = `(() => {
  const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const over = (f, b) => [0, 1, 2].map((i) => f[i] * f[3] + b[i] * (1 - f[3])).concat(1);
  const lum = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { const list = []; for (let x = e; x; x = x.parentElement) { const c = parse(getComputedStyle(x).backgroundColor); if (c[3]) list.unshift(c); } return list.reduce((a, c) => over(c, a), [255, 255, 255, 1]); };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.nodeValue.trim() || !e.checkVisibility() || e.closest(':disabled') || e.closest('option, .hide')) continue;
    let fade = 1; for (let x = e; x; x = x.parentElement) fade *= Number(getComputedStyle(x).opacity);
    const back = behind(e), ink = parse(getComputedStyle(e).color); ink[3] *= fade;
    const [a, b] = [lum(over(ink, back)), lum(back)].sort((x, y) => y - x);
    seen++;
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(((a + 0.05) / (b + 0.05)).toFixed(2) + ' ' + walk.currentNode.nodeValue.trim().slice(0, 40));
  }
  return seen < 12 ? ['only ' + seen + ' texts were looked at'] : bad;
})()`

// Every page, in both palettes, on a screen and on a phone: nothing sticks out
// to the side, all text can be read. With PMM_CALLGOOSE_SCREENSHOTS they are kept.
func TestPagesAreLegibleOnEveryScreenAndInBothPalettes(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{})
	check := func(suffix string, paths map[string]string) {
		for p, path := range paths {
			b.goTo(path)
			b.legible(p + suffix)
		}
	}
	check("", map[string]string{
		"overview": "/", "events": "/events", "event": "/events/" + s.list("dead")[0].ID, "dead": "/dead-letters",
		"incidents": "/incidents", "incident": "/incidents/" + s.list("suppressed")[0].Key,
		"replay": "/replay?outcome=dead,delivered", "drop": "/dead-letters/drop?all=true", "refused": "/events?since=x",
	})
	if err := s.out.Close(); err != nil {
		t.Fatal(err)
	}
	for n := range 16 {
		s.post(down(30 + n))
	}
	s.until("an outage", func(st admin.Status) bool { return st.Callgoose.State == "down" && st.Queued == 16 })
	check("-outage", map[string]string{"overview": "/", "event": "/events/" + s.list("queued")[0].ID})
}

func TestAnOutageAndItsEndAreSeenLive(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{height: 500, width: 1000})
	b.goTo("/")
	b.sees("#state", "3 events were given up")
	b.sees("#live", "live")
	// What the operator does meanwhile must not be disturbed.
	row := `[id='e-` + s.list("suppressed")[0].ID + `']`
	b.do(chromedp.Focus(row+" a", chromedp.ByQuery), chromedp.Click("#plot summary", chromedp.ByQuery), chromedp.Focus(row+" a", chromedp.ByQuery))
	b.do(chromedp.Evaluate(`window.same = document.activeElement; document.querySelector("`+row+`").scrollIntoView({block: 'center'}); window.place = window.same.getBoundingClientRect().top; 0`, nil))

	if err := s.out.Close(); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		s.post(down(30 + n))
	}
	b.sees("#state", "5 events wait")
	b.sees("#state", "Callgoose cannot be reached")
	b.sees("#state", "Next try")
	b.sees("#state", "connection refused")
	b.sees("#counts", "Waiting 5")
	b.sees("#latest", "queued")
	if got := eval[string](b, "document.getElementById('summary').textContent.trim()"); got != "Attention: down dead_letters" {
		t.Errorf("a screen reader hears %q", got)
	}
	if !eval[bool](b, "document.activeElement === window.same && window.same.isConnected") {
		t.Error("the focus was moved")
	}
	if moved := eval[float64](b, "Math.abs(window.same.getBoundingClientRect().top - window.place)"); moved > 2 {
		t.Errorf("what was looked at moved by %.0f pixels", moved)
	}
	if !eval[bool](b, "document.getElementById('plot-table').open") {
		t.Error("what was unfolded was folded again")
	}
	b.picture("live-outage")

	if err := s.out.Reopen(); err != nil {
		t.Fatal(err)
	}
	b.sees("#summary", "Attention: dead_letters")
	b.sees("#counts", "Delivered 21 (")
	if !eval[bool](b, "document.activeElement === window.same") {
		t.Error("the focus was moved")
	}
}

func TestEventsAreFilteredByTheAddressWithoutScripts(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{noJS: true})
	b.goTo("/events")
	if eval[bool](b, "!document.getElementById('live').hidden") {
		t.Fatal("a script ran")
	}
	b.do(chromedp.SendKeys("#f-match0", "severity=warning", chromedp.ByQuery), chromedp.SetValue("#f-status", "firing", chromedp.ByQuery), chromedp.SetValue("#f-outcome", "delivered", chromedp.ByQuery))
	b.click(".filters button")
	if got := b.where(); got != "/events?match=severity%3Dwarning&outcome=delivered&status=firing" {
		t.Errorf("the address is %s", got)
	}
	if n := eval[int](b, "document.querySelectorAll('#list tbody tr').length"); n != 7 {
		t.Errorf("%d events are listed, want 7", n)
	}
	b.do(chromedp.SetValue("#f-text", "MYSQL-05", chromedp.ByQuery))
	b.click(".filters button")
	if n := eval[int](b, "document.querySelectorAll('#list tbody tr').length"); n != 1 {
		t.Errorf("%d events are listed, want 1", n)
	}
	b.click("#list tbody th a")
	b.sees("h1", "MySQL replication lag")
	b.sees("#others", "resolved")
	b.sees("#attempts", "delivered")
	b.goTo("/events?limit=6")
	first := b.text("#list tbody")
	b.click("a[rel=next]")
	if second := b.text("#list tbody"); second == first || eval[int](b, "document.querySelectorAll('#list tbody tr').length") != 6 {
		t.Errorf("the second page is %q", second)
	}
}

func TestAnEventIsSentAgainAfterAPreviewWithoutScripts(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{noJS: true})
	dead := s.list("dead")[0]
	b.goTo("/events/" + dead.ID)
	b.sees("#facts", "422")
	b.click(".title .primary")
	b.sees("#plan", "1 event of 1 incident: 1 firing, 0 resolved")
	before := len(s.fake.Received())
	b.click(".confirm .primary")
	if !strings.HasPrefix(b.where(), "/replay/") {
		t.Fatalf("at %s", b.where())
	}
	s.until("it was sent", func(st admin.Status) bool { return st.Dead == 2 && st.Queued == 0 })
	b.click(".title a.button")
	b.sees("#job", "Done: 1 of 1 settled")
	b.picture("job-light")
	if got := s.fake.Received()[before:]; len(got) != 1 || got[0].EventID != dead.ID {
		t.Errorf("Callgoose got %+v", got)
	}
}

func TestDeadLettersAreRetriedAndDropped(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{})
	b.goTo("/dead-letters")
	b.do(chromedp.Click("#list tbody tr:nth-child(2) input", chromedp.ByQuery))
	b.click(".actions .primary")
	b.sees("#plan", "1 event of 1 incident")
	b.click(".confirm .primary")
	b.sees("#job", "Done: 1 of 1 settled") // by itself: scripts are on
	b.goTo("/dead-letters")
	b.click("a[href='/dead-letters/drop?all=true']")
	b.sees("#plan", "2 dead letters of 2 incidents: 2 firing")
	b.click(".confirm .danger")
	b.sees("#list", "There are none.")
	s.until("they are gone", func(st admin.Status) bool { return st.Dead == 0 })
}

func TestAllDeadLettersShownAreChosenAtOnce(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{width: 360, height: 780})
	b.goTo("/dead-letters")
	b.do(chromedp.Click("#all", chromedp.ByQuery))
	b.click(".actions .primary")
	b.sees("#plan", "3 events of 3 incidents")
}

func TestABarOfTheChartLeadsToTheEventsOfItsTime(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{})
	b.goTo("/")
	b.click("#plot svg a:last-of-type .hit")
	if where := b.where(); !strings.HasPrefix(where, "/events?since=") {
		t.Fatalf("it leads to %s", where)
	}
	b.sees("#list", "MySQL down")
}

func TestAReplayByFilterIsFollowedThroughAnOutage(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{})
	b.goTo("/events?outcome=delivered&match=severity%3Dwarning")
	b.click(".title a.button")
	// Two of the nine are firing events of alerts that are over.
	b.sees("#plan", "7 events of 7 incidents: 5 firing, 2 resolved")
	b.sees("main", "2 firing events are left out")
	if err := s.out.Close(); err != nil {
		t.Fatal(err)
	}
	b.click(".confirm .primary")
	b.sees("#job", "Waiting for Callgoose: 0 of 7 settled")
	b.picture("job-outage")
	if err := s.out.Reopen(); err != nil {
		t.Fatal(err)
	}
	b.sees("#job", "Done: 7 of 7 settled")
}

// Beyond loopback a browser sends no Sec-Fetch-Site over plain HTTP: only the
// Origin tells where a form came from.
func TestLoggingInBeyondLoopback(t *testing.T) {
	s := serve(t, func(c *config.Config) {
		c.AdminListen, c.AdminToken = "0.0.0.0:0", config.NewSecret(operatorsToken)
	})
	s.post(down(1))
	s.settled(1)
	port := s.urls.Admin[strings.LastIndex(s.urls.Admin, ":"):]
	b := open(t, "http://"+beyond+port, look{})
	b.goTo("/events?status=firing")
	if got := b.where(); !strings.HasPrefix(got, "/login?next=") {
		t.Fatalf("at %s", got)
	}
	b.picture("login-light")
	b.do(chromedp.SendKeys("#token", "wrong", chromedp.ByQuery))
	b.click("main button")
	b.sees("#problem", "not the operators' token")
	b.do(chromedp.SendKeys("#token", operatorsToken, chromedp.ByQuery))
	b.click("main button")
	if got := b.where(); got != "/events?status=firing" {
		t.Fatalf("at %s", got)
	}
	b.do(chromedp.ActionFunc(func(ctx context.Context) error {
		all, err := network.GetCookies().Do(ctx)
		if err != nil {
			return err
		}
		if len(all) != 1 || !all[0].HTTPOnly || all[0].SameSite != network.CookieSameSiteStrict || strings.Contains(all[0].Value, operatorsToken) {
			return fmt.Errorf("the cookies are %+v", all)
		}
		return nil
	}))
	if got := eval[string](b, "document.cookie"); got != "" {
		t.Errorf("a script sees the cookie: %q", got)
	}
	if got := eval[int](b, "fetch('/api/v1/status').then((r) => r.status)"); got == http.StatusOK {
		t.Error("the API takes the cookie")
	}
	s.post(down(2))
	b.sees("#list", "mysql-02") // live
	b.click("#list tbody th a")
	b.click(".title .primary")
	b.click(".confirm .primary")
	b.sees("#job", "Done: 1 of 1 settled")
	b.click(".top form button")
	b.goTo("/events")
	if got := b.where(); !strings.HasPrefix(got, "/login") {
		t.Errorf("after the end of the session: at %s", got)
	}
}

// tabTo presses Tab until an element has the focus, and demands that one sees it.
func (b *browser) tabTo(sel string) {
	b.t.Helper()
	for range 60 {
		b.do(chromedp.KeyEvent(kb.Tab))
		if eval[bool](b, fmt.Sprintf("document.activeElement.matches(%q)", sel)) {
			if eval[string](b, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
				b.t.Errorf("the focus on %s cannot be seen", sel)
			}
			return
		}
	}
	b.t.Fatalf("60 times Tab did not lead to %s", sel)
}

// enter presses Enter and waits for the page it leads to.
func (b *browser) enter() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.KeyEvent(kb.Enter)); err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.WaitReady("main"))
}

func TestEverythingIsReachedByKeyboard(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{})
	b.goTo("/")
	b.do(chromedp.KeyEvent(kb.Tab))
	if !eval[bool](b, "document.activeElement.matches('.skip')") {
		t.Error("the first Tab does not offer to skip to the content")
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	if !eval[bool](b, "document.activeElement.id === 'main'") {
		t.Error("the skip link does not lead to the content")
	}
	b.goTo("/")
	b.tabTo(".top nav a[href='/dead-letters']")
	b.enter()
	b.tabTo("#list input")
	b.do(chromedp.KeyEvent(" "))
	b.tabTo(".actions .primary")
	b.enter()
	b.sees("#plan", "1 event of 1 incident")
	b.tabTo(".confirm .primary")
	b.enter()
	b.sees("#job", "Done: 1 of 1 settled")
}

func TestTheAccessibilityTreeHasNames(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{})
	b.goTo("/dead-letters")
	for _, width := range []int64{1280, 360} {
		b.look(look{width: width, height: 800})
		roles, nameless := map[string]int{}, []string{}
		b.do(chromedp.ActionFunc(func(ctx context.Context) error {
			// Read by hand: a Chromium newer than cdproto has properties it does not know.
			type value struct {
				Value any `json:"value"`
			}
			var tree struct {
				Nodes []struct {
					Ignored bool  `json:"ignored"`
					Role    value `json:"role"`
					Name    value `json:"name"`
				} `json:"nodes"`
			}
			err := cdp.Execute(ctx, accessibility.CommandGetFullAXTree, nil, &tree)
			for _, n := range tree.Nodes {
				role, _ := n.Role.Value.(string)
				name, _ := n.Name.Value.(string)
				if n.Ignored {
					continue
				}
				roles[role]++
				switch role {
				case "link", "button", "checkbox", "textbox", "searchbox", "combobox", "columnheader", "navigation":
					if name == "" {
						nameless = append(nameless, role)
					}
				}
			}
			return err
		}))
		for _, role := range []string{"banner", "main", "contentinfo", "navigation", "status", "table", "columnheader", "rowheader", "checkbox"} {
			if roles[role] == 0 {
				t.Errorf("at a width of %d: no %s in %v", width, role, roles)
			}
		}
		if len(nameless) > 0 {
			t.Errorf("at a width of %d these have no name: %v", width, nameless)
		}
	}
}

func TestHostileAlertsAreOnlyText(t *testing.T) {
	s := serve(t, nil)
	evil := down(1)
	evil.Labels["alertname"] = `<img src=x onerror="alert(1)"><script>alert(2)</script>`
	evil.Labels["instance"] = "safe\u202egnp.exe\u0000\u001b[31m"
	evil.Labels["severity"] = `"><svg onload=alert(3)>`
	evil.Labels["huge"] = strings.Repeat("W", 200_000)
	evil.Labels[`{{.CSRF}}`] = "`'\"</pre></td></table>"
	evil.Annotations["runbook_url"] = "javascript:alert(4)"
	evil.Annotations["dashboard"] = "https://user@good.example@evil.example/"
	evil.Generator = "data:text/html,<script>alert(5)</script>"
	zalgo := down(2)
	zalgo.Labels["alertname"] = "Z" + strings.Repeat("\u0334\u0321\u0489", 300)
	s.post(evil, zalgo)
	s.settled(2)
	var id string
	for _, r := range s.list("delivered") {
		if strings.Contains(r.Alertname, "img") {
			id = r.ID
		}
	}
	b := open(t, s.urls.Admin, look{})
	for name, l := range map[string]look{"wide": {}, "phone": {width: 360, height: 780}} {
		b.look(l)
		for page, path := range map[string]string{"overview": "/", "events": "/events?match=alertname%3D" + "%3Cimg", "event": "/events/" + id, "replay": "/replay?id=" + id, "list": "/events?text=%3Cscript%3E"} {
			b.goTo(path)
			b.picture("hostile-" + page + "-" + name)
			if eval[bool](b, "!!document.querySelector('main img, main script, svg[onload], body [onerror]')") {
				t.Errorf("%s: the alert made an element", path)
			}
			if eval[bool](b, `/[\u202e\u0000\u001b]/.test(document.body.innerText)`) {
				t.Errorf("%s: a character that deceives stands on the page", path)
			}
			if bad := eval[[]string](b, `[...document.querySelectorAll('main a')].map((a) => new URL(a.getAttribute('href'), location).href).filter((h) => !/^https?:/.test(h) || h.includes('@'))`); len(bad) > 0 {
				t.Errorf("%s: links to %q", path, bad)
			}
			if w := eval[int64](b, "document.documentElement.scrollWidth"); l.width != 0 && w > l.width {
				t.Errorf("%s is %d pixels wide on a phone", path, w)
			}
			if n := eval[int](b, "document.body.innerHTML.length"); n > 400_000 {
				t.Errorf("%s has %d characters", path, n)
			}
		}
	}
}

// The other tests demand that the browser complains of nothing. This one shows
// that it would.
func TestTheContentPolicyIsInForce(t *testing.T) {
	s := serve(t, nil)
	b := open(t, s.urls.Admin, look{})
	b.goTo("/")
	b.do(chromedp.Evaluate(`const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(i, s); 0`, nil))
	deadline := time.Now().Add(patience)
	for {
		b.mu.Lock()
		text := strings.Join(b.problems, "\n")
		if strings.Contains(text, "img-src") && strings.Contains(text, "script-src") {
			b.problems = nil
			b.mu.Unlock()
			break
		}
		b.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("the browser complained only of: %s", text)
		}
		b.text("h1")
	}
	if eval[bool](b, "!!window.ran") {
		t.Error("an inline script ran")
	}
}

func TestTimesAreThoseOfTheReaderOrUTC(t *testing.T) {
	s := filled(t)
	b := open(t, s.urls.Admin, look{})
	b.do(emulation.SetTimezoneOverride("Asia/Kolkata")) // five and a half hours ahead, all year
	b.goTo("/events")
	first := eval[string](b, "document.querySelector('#list time').dateTime")
	at, err := time.Parse(time.RFC3339, first)
	if err != nil {
		t.Fatal(err)
	}
	kolkata := at.Add(5*time.Hour + 30*time.Minute).Format(time.TimeOnly)
	b.sees("#list time", kolkata)
	b.sees("#zone", "all times are Asia/")
	b.do(chromedp.Click("#zone button", chromedp.ByQuery))
	b.sees("#list time", at.Format(time.TimeOnly)+"Z")
	b.goTo("/events") // it is remembered
	b.sees("#list time", at.Format(time.TimeOnly)+"Z")
}

func TestDeliveryIsPausedAndResumedOnThePage(t *testing.T) {
	s := serve(t, nil)
	s.post(down(1))
	s.settled(1)
	b := open(t, s.urls.Admin, look{noJS: true})
	b.goTo("/")
	b.sees("#state", "Callgoose takes events; nothing waits.")
	b.sees("#state", "MySQL replication lag on mysql-01:3306 is firing, opened an incident")
	b.picture("good-light")
	b.do(chromedp.SendKeys("#p-reason", "filters", chromedp.ByQuery))
	b.click("#pause button")
	s.until("a pause", func(st admin.Status) bool { return st.Pause != nil && st.Pause.Reason == "filters" })
	s.post(down(2))
	b.goTo("/")
	b.sees("#state", "Delivery is paused by somebody from 127.0.0.1 (filters); 1 event waits.")
	b.legible("paused")
	b.click("#state button")
	s.until("the end of the pause", func(st admin.Status) bool { return st.Pause == nil && st.Delivered == 2 })
}

// What stands on the overview in each state, beside those of the other tests.
func TestTheOverviewNamesCauseAndWayOutInEveryState(t *testing.T) {
	// The only filter is one that nothing passes.
	nothing := []filters.Filter{{Trigger: filters.Trigger{
		Urgency: "high", Pairs: []filters.Pair{{Key: `"status"`, Items: []string{"never"}}},
		MapWith: `"incident_key"`, TitleFrom: `"title"`, DescriptionFrom: `"description"`,
	}}}
	for _, c := range []struct {
		name   string
		change func(*testing.T, *config.Config)
		story  func(*service)
		until  func(admin.Status) bool
		sees   map[string]string
	}{
		{"empty", nil, func(*service) {}, func(st admin.Status) bool { return st.Level == admin.Idle }, map[string]string{
			"#state": "Nothing was sent to Callgoose yet; nothing waits.", "#latest": "Nothing has come in yet", "#first": "PMM reaches this service with pmm-callgoose setup pmm", "#store": "no firing event in 30 days",
		}},
		{"held", nil, func(s *service) {
			s.fake.SetTokens("another")
			s.post(down(1), down(2))
		}, func(st admin.Status) bool { return st.Callgoose.State == "held" && st.Queued == 2 }, map[string]string{
			"#state": "Put a valid API token into the token file", "#state form": "Check now", "#waiting": "MySQL replication lag", "#plot": "nobody was called",
		}},
		{"away", func(t *testing.T, c *config.Config) {
			c.PingURL, c.PingEvery = config.NewSecret("http://127.0.0.1:9/ping"), time.Minute
			c.FallbackWebhook, c.FallbackAfter = config.NewSecret("http://127.0.0.1:9/hook"), time.Millisecond
		}, func(s *service) {
			_ = s.out.Close()
			s.post(down(1), down(4))
		}, func(st admin.Status) bool { return st.Fallback.LastError != "" && st.Ping.LastError != "" }, map[string]string{
			"#state": "did not get through", "#store": "Heartbeat not taken: call webhook: cannot connect to 127.0.0.1:9: connection refused", "#plot": "nobody was called",
		}},
		{"drift", func(t *testing.T, c *config.Config) {
			text, err := filters.Write(filters.Recommended())
			if err != nil {
				t.Fatal(err)
			}
			c.CallgooseFilters = filepath.Join(t.TempDir(), "filters.yaml")
			if err := os.WriteFile(c.CallgooseFilters, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}, func(s *service) {
			s.fake.SetFilters(nothing)
			s.post(down(1))
		}, func(st admin.Status) bool { return st.Filters.Drift == 1 }, map[string]string{
			"#state": "1 answer of Callgoose is not what --callgoose-filters say", "#store": "Filters 1 answer is not those",
		}},
		{"discarded", nil, func(s *service) {
			s.fake.SetFilters(nothing)
			s.post(down(1), down(2), down(3))
		}, func(st admin.Status) bool { return st.Discarded == 3 }, map[string]string{
			"#state": "no filter matched 3 events of the last day: nobody was called", "#plot": "3 discarded",
		}},
		{"refused", nil, func(s *service) {
			resp, err := http.Post(s.urls.Webhooks, "application/json", strings.NewReader("{"))
			if err != nil {
				s.t.Fatal(err)
			}
			_ = resp.Body.Close()
		}, func(st admin.Status) bool { return st.Refused.LastHour == 1 }, map[string]string{
			"#state": "1 webhook was refused in the last hour", "#pmm": "with 400",
		}},
		{"many", nil, func(s *service) {
			for n := range 40 {
				group := make([]alert, 25)
				for i := range group {
					group[i] = down(25*n + i)
				}
				s.post(group...)
			}
		}, func(st admin.Status) bool { return st.Delivered == 1000 }, map[string]string{"#state": "Callgoose takes events; nothing waits.", "#plot": "1 000 out"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, func(cfg *config.Config) {
				if c.change != nil {
					c.change(t, cfg)
				}
			})
			c.story(s)
			s.until(c.name, c.until)
			b := open(t, s.urls.Admin, look{})
			b.goTo("/")
			for sel, want := range c.sees {
				b.sees(sel, want)
			}
			b.legible("state-" + c.name)
		})
	}
}

func TestCheckNowProbesAtOnce(t *testing.T) {
	s := serve(t, func(c *config.Config) { c.RetryMin, c.RetryMax = time.Hour, time.Hour })
	if err := s.out.Close(); err != nil {
		t.Fatal(err)
	}
	s.post(down(1))
	s.until("an outage", func(st admin.Status) bool { return st.Callgoose.State == "down" })
	if err := s.out.Reopen(); err != nil {
		t.Fatal(err)
	}
	b := open(t, s.urls.Admin, look{noJS: true})
	b.goTo("/")
	b.click("#state button")
	s.until("it was sent", func(st admin.Status) bool { return st.Delivered == 1 })
}
