package callgoosetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/worker/callgoose/filters"
)

// send posts body in memory and returns the code and the flags that were set.
// Further arguments are header names and values.
func send(t *testing.T, f *Fake, query, body string, header ...string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://callgoose.test/v1/process"+query, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := f.RoundTripper().RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	return flags(t, resp)
}

func flags(t *testing.T, resp *http.Response) string {
	t.Helper()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		t.Fatal(err)
	}
	s := fmt.Sprint(resp.StatusCode)
	for _, flag := range []struct {
		name string
		on   bool
	}{{"created", a.Triggered.Created}, {"duplicate", a.Triggered.Duplicate}, {"resolved", a.Resolved.Resolved}, {"resolved-duplicate", a.Resolved.Duplicate}} {
		if flag.on {
			s += " " + flag.name
		}
	}
	return s
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func event(key, id, status string) string {
	return fmt.Sprintf(`{"status":%q,"incident_key":%q,"event_id":%q,"title":"Down","description":"Text","severity":"warning"}`, status, key, id)
}

func sample(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../../testdata/webhook/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheGuideAsPrintedNeverClosesItsIncident(t *testing.T) {
	f := New(Config{Filters: filters.Guide()})
	want(t, send(t, f, "?from=PerconaPMM&token=x", sample(t, "guide-firing.json")), "201 created")
	want(t, send(t, f, "?from=PerconaPMM&token=x", sample(t, "guide-resolved.json")), "200")
	open := f.Open()
	if len(open) != 1 {
		t.Fatalf("open: %+v", open)
	}
	want(t, open[0].Title, "New incident from PerconaPMM") // the printed title path finds nothing
	want(t, open[0].Description, "Instance mysql-01:3306 has been unreachable for more than 1 minute.")
	want(t, open[0].Mapped, "MySQL Down")

	// What is missing is commonLabels.
	whole := strings.Replace(sample(t, "guide-resolved.json"), `"alerts"`, `"commonLabels":{"alertname":"MySQL Down"},"alerts"`, 1)
	want(t, send(t, f, "", whole), "200 resolved")
	if len(f.Open()) != 0 {
		t.Error("still open")
	}
}

func TestTheRecommendedFiltersMapEachAlert(t *testing.T) {
	f := New(Config{KeepBodies: true})
	critical := strings.Replace(event("pmm-1", "a", "firing"), "warning", "critical", 1)
	want(t, send(t, f, "?from=PMM", critical), "201 created")
	want(t, send(t, f, "", event("pmm-2", "b", "firing")), "201 created")
	want(t, send(t, f, "", `{"status":"firing","incident_key":"pmm-3"}`), "201 created")
	want(t, send(t, f, "?from=PMM", event("pmm-1", "c", "resolved")), "200 resolved")
	in := f.Incidents()
	if len(in) != 3 || len(f.Open()) != 2 || f.Open()[0].ID != in[1].ID {
		t.Fatalf("incidents: %+v", in)
	}
	want(t, in[0].Title+"|"+in[0].Description+"|"+in[0].Urgency+"|"+in[0].ClosedBy, "PMM - Down|Text|High|call-000004")
	want(t, in[1].Title+"|"+in[1].Urgency+"|"+in[1].ClosedBy, "Down|Low|")
	want(t, in[2].Title+"|"+in[2].Description, `New incident|{"status":"firing","incident_key":"pmm-3"}`)
	r := f.Received()[0]
	want(t, r.From+" "+r.IncidentKey+" "+r.EventID+" "+r.Status+" "+string(r.How)+" "+r.Effect+" "+r.ContentType, "PMM pmm-1 a firing answered created application/json")
	want(t, string(r.Body), critical)
}

func TestSwitches(t *testing.T) {
	a, b, ok, both := event("k", "a", "firing"), event("k", "b", "firing"), event("k", "c", "resolved"), event("k", "d", "firing, was resolved")
	const minute = time.Minute
	for name, c := range map[string]struct {
		cfg Config
		do  []string // body, answer, body, answer ...; "later" waits two minutes
	}{
		"a second trigger is ignored":                  {Config{}, []string{a, "201 created", b, "200", ok, "200 resolved", ok, "200"}},
		"a second trigger is a duplicate":              {Config{SecondTrigger: SecondDuplicate, DuplicateStatus: 202}, []string{a, "201 created", b, "202 duplicate"}},
		"a second trigger opens, a resolve closes all": {Config{SecondTrigger: SecondIncident}, []string{a, "201 created", b, "201 created", ok, "200 resolved", ok, "200"}},
		"a resolve closes one":                         {Config{SecondTrigger: SecondIncident, ResolveOne: true}, []string{a, "201 created", b, "201 created", ok, "200 resolved", ok, "200 resolved", ok, "200"}},
		"a resolve without match is a 202":             {Config{UnmatchedStatus: 202}, []string{ok, "202", a, "201 created", ok, "200 resolved"}},
		"an overtaken resolve closes nothing":          {Config{}, []string{ok, "200", a, "201 created"}},
		"the same bytes are a duplicate":               {Config{DuplicateWindow: minute}, []string{a, "201 created", a, "200 duplicate", ok, "200 resolved", ok, "200 resolved-duplicate", b, "201 created"}},
		"a duplicate answered 201":                     {Config{DuplicateWindow: minute, DuplicateStatus: 201}, []string{a, "201 created", a, "201 duplicate"}},
		"after the window nothing is a duplicate":      {Config{DuplicateWindow: minute, SecondTrigger: SecondIncident}, []string{a, "201 created", "later", "", a, "201 created"}},
		"no filter passes":                             {Config{}, []string{event("k", "x", "pending"), "202", "not JSON", "202", "", "202"}},
		"no filter at all":                             {Config{Filters: []filters.Filter{}}, []string{a, "202"}},
		"one request may resolve and trigger":          {Config{}, []string{a, "201 created", both, "201 created resolved"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(c.cfg)
				for i := 0; i < len(c.do); i += 2 {
					if c.do[i] == "later" {
						time.Sleep(2 * minute)
					} else if got := send(t, f, "", c.do[i]); got != c.do[i+1] {
						t.Errorf("step %d: got %q, want %q", i/2+1, got, c.do[i+1])
					}
				}
			})
		})
	}
}

func TestARepeatIsCreatedOnceTheFilterIsRepaired(t *testing.T) {
	f, e := New(Config{Filters: []filters.Filter{}, DuplicateWindow: time.Hour, Tokens: []string{"new"}}), event("k", "a", "firing")
	f.SetTokens("old")
	bearer := []string{"Authorization", "Bearer new"}
	want(t, send(t, f, "", e, bearer...), "401")
	f.SetTokens("new")
	want(t, send(t, f, "", e, bearer...), "202")
	f.SetFilters(filters.Recommended())
	want(t, send(t, f, "", e, bearer...), "201 created")
	if r := f.Check([]Expect{{"k", "firing"}}); !r.OK() || r.Count(Retried) != 1 {
		t.Error(r)
	}
}

func TestIncidentsSayWhichAlertsTheyStandFor(t *testing.T) {
	named := func(key, id, status string) string {
		return strings.TrimSuffix(event(key, id, status), "}") + `,"commonLabels":{"alertname":"Down"},"alerts":[]}`
	}
	for name, c := range map[string]struct {
		filters []filters.Filter
		open    string // by incident key: opened by which event
		closed  string // the incidents after all: opened and closed by which events
	}{
		"recommended": {filters.Recommended(), "map[a:[a1] b:[b1]]", "[a1>a2 b1>b2]"},
		"guide":       {filters.Guide(), "map[a:[a1] b:[a1]]", "[a1>a2]"},
	} {
		t.Run(name, func(t *testing.T) {
			f := New(Config{Filters: c.filters})
			for _, e := range []string{named("a", "a1", "firing"), named("b", "b1", "firing"), named("b", "b1", "firing")} {
				send(t, f, "", e)
			}
			open := map[string][]string{}
			for key, incidents := range f.OpenByKey() {
				for _, i := range incidents {
					open[key] = append(open[key], i.OpenedEvent)
				}
			}
			want(t, fmt.Sprint(open), c.open)
			send(t, f, "", named("a", "a2", "resolved"))
			send(t, f, "", named("b", "b2", "resolved"))
			var closed []string
			for _, i := range f.Incidents() {
				closed = append(closed, i.OpenedEvent+">"+i.ClosedEvent)
				if i.OpenedAt.IsZero() || i.ClosedAt.Before(i.OpenedAt) {
					t.Errorf("%+v", i)
				}
			}
			want(t, fmt.Sprint(closed), c.closed)
			if len(f.OpenByKey()) != 0 {
				t.Errorf("still open: %v", f.OpenByKey())
			}
		})
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	e := event("k", "a", "firing")
	for name, c := range map[string]struct {
		strict       bool
		query, auth  string
		header       []string
		want, record string
	}{
		"a bearer token":                   {auth: "Bearer secret", want: "201 created", record: "bearer"},
		"a query token":                    {query: "?token=secret", want: "201 created", record: "query"},
		"a wrong bearer token":             {auth: "Bearer secre", want: "401", record: "bearer"},
		"a wrong query token":              {query: "?token=", want: "401", record: "query"},
		"another scheme":                   {auth: "Basic secret", want: "401", record: "bearer"},
		"no token":                         {want: "401", record: "none"},
		"both forms":                       {query: "?token=x", auth: "Bearer secret", want: "201 created", record: "both"},
		"both forms, strictly":             {strict: true, query: "?token=secret", auth: "Bearer secret", want: "401", record: "both"},
		"text is read":                     {auth: "Bearer secret", header: []string{"Content-Type", "text/plain; charset=utf-8"}, want: "201 created", record: "bearer"},
		"a form is an empty payload":       {auth: "Bearer secret", header: []string{"Content-Type", "application/x-www-form-urlencoded"}, want: "202", record: "bearer"},
		"no type is an empty payload":      {auth: "Bearer secret", header: []string{"Content-Type", ""}, want: "202", record: "bearer"},
		"compression is an empty payload":  {auth: "Bearer secret", header: []string{"Content-Encoding", "gzip"}, want: "202", record: "bearer"},
		"a bearer token, though strict":    {strict: true, auth: "Bearer secret", want: "201 created", record: "bearer"},
		"a query token beside other query": {query: "?from=x&token=secret", want: "201 created", record: "query"},
	} {
		t.Run(name, func(t *testing.T) {
			f := New(Config{Tokens: []string{"secret"}, Strict: c.strict})
			if c.auth != "" {
				c.header = append(c.header, "Authorization", c.auth)
			}
			want(t, send(t, f, c.query, e, c.header...), c.want)
			want(t, f.Received()[0].Auth, c.record)
			if text, _ := json.Marshal(f.Received()); bytes.Contains(text, []byte("secret")) {
				t.Errorf("the record holds the token: %s", text)
			}
		})
	}
	f := New(Config{})
	for method, code := range map[string]int{"GET /v1/process": 405, "PUT /v1/process": 405, "POST /v1/request": 404, "POST /sqibs-api/v1/process": 202} {
		verb, path, _ := strings.Cut(method, " ")
		req, _ := http.NewRequestWithContext(t.Context(), verb, "https://callgoose.test"+path, nil)
		resp, err := f.RoundTripper().RoundTrip(req)
		if err != nil || resp.StatusCode != code {
			t.Errorf("%s: %v %v", method, resp, err)
		}
	}
}

func TestMemoryStaysBounded(t *testing.T) {
	f := New(Config{})
	r := f.RoundTripper()
	var expect []Expect
	post := func(key, id, status string) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://callgoose.test/process", strings.NewReader(event(key, id, status)))
		req.Header.Set("Content-Type", "application/json")
		if _, err := r.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		expect = append(expect, Expect{key, status})
	}
	post("stays-open", "o", "firing")
	for i := range 2*kept + 1 {
		key := fmt.Sprint("k", i)
		post(key, key+"f", "firing")
		post(key, key+"r", "resolved")
	}
	if n := len(f.Received()); n < kept || n > 2*kept {
		t.Errorf("%d requests kept", n)
	}
	if n := len(f.Incidents()); n < kept || n > 2*kept+1 {
		t.Errorf("%d incidents kept", n)
	}
	if f.Received()[0].Body != nil || len(f.Open()) != 1 || f.Open()[0].Mapped != "stays-open" {
		t.Errorf("open: %v", f.Open())
	}
	if report := f.Check(expect); !report.OK() || report.Events != len(expect) {
		t.Error(report)
	}
}
