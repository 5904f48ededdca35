package filters_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

// sent is an event as the service posts it.
func sent(n int, key, name, status, severity string, unique bool) filters.Event {
	labels := map[string]string{"alertname": name, "instance": key}
	if severity != "" {
		labels["severity"] = severity
	}
	raw, _ := json.Marshal(map[string]any{"status": status, "labels": labels})
	id := fmt.Sprintf("e%d", n)
	body := callgoose.Body(callgoose.Alert{
		Status: status, Raw: raw, Labels: labels, Annotations: map[string]string{"summary": "s"}, Fingerprint: key,
		Source: "PerconaPMM", IncidentKey: key, EventID: id, UniqueName: unique,
	})
	return filters.Event{ID: id, Key: key, Status: event.Status(status), Body: body}
}

// post is the fake's answer to the event.
func post(t *testing.T, fake http.Handler, e filters.Event) filters.Answer {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://callgoose.test/v1/process?from=PerconaPMM", bytes.NewReader(e.Body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	fake.ServeHTTP(w, r)
	return filters.Answer{Code: w.Code}
}

// In each of the eight forecasts, 10,000 in all.
const forecastEvents = 1_250

func TestTheForecastIsWhatCallgooseThenDoes(t *testing.T) {
	odd := []filters.Filter{
		{ // opens and closes with the same request, and maps on what is not always there
			Trigger: filters.Trigger{Pairs: []filters.Pair{{Key: `"status"`, Items: []string{"r"}}}, MapWith: `"alerts".[0]."labels"."severity"`, TitleFrom: `"nowhere"`},
			Resolve: filters.Resolve{Pair: filters.Pair{Key: `"severity"`, Items: []string{"info"}}, MapWith: `"alerts".[0]."labels"."severity"`},
		},
	}
	narrow := filters.Recommended()[:1]
	for name, set := range map[string][]filters.Filter{"guide": filters.Guide(), "recommended": filters.Recommended(), "critical only": narrow, "odd": odd} {
		for _, unique := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, unique names %v", name, unique), func(t *testing.T) {
				var effect string
				fake := callgoosetest.New(callgoosetest.Config{Filters: set, Observe: func(r callgoosetest.Request) { effect = r.Effect }})
				forecast := filters.NewForecast(set, "PerconaPMM")
				dice := rand.New(rand.NewPCG(1, 2))
				for n := range forecastEvents {
					k := dice.IntN(60)
					e := sent(n, fmt.Sprintf("pmm-%02d", k), fmt.Sprintf("Alert %d", k%7), []string{"firing", "resolved"}[dice.IntN(2)],
						[]string{"", "critical", "info"}[k%3], unique)
					got, want := forecast.Take(e), post(t, fake, e)
					if want.Effect = effect; got != want {
						t.Fatalf("event %d: forecast %+v, the fake answered %+v", n, got, want)
					}
				}
				compare(t, forecast.Report(), fake)
			})
		}
	}
}

// compare holds what is open in the end against the fake's incidents.
func compare(t *testing.T, r filters.Report, fake *callgoosetest.Fake) {
	t.Helper()
	want := map[string]int{}
	for _, i := range fake.Open() {
		want[fmt.Sprint(i.Mapped, i.Title, i.Urgency, i.Keys, i.OpenedEvent)]++
	}
	got := map[string]int{}
	for _, i := range r.Incidents {
		if i.ClosedBy == "" {
			got[fmt.Sprint(i.Mapped, i.Title, i.Urgency, i.Keys, i.OpenedBy)]++
		}
	}
	if r.Open != len(fake.Open()) || r.Events != forecastEvents || r.Created+r.Resolved+r.None+r.Discarded != r.Events {
		t.Errorf("the numbers do not agree with %d open: %+v", len(fake.Open()), r)
	}
	if r.Open < 1000 && !maps.Equal(got, want) {
		t.Errorf("open in the forecast %v\nopen at the fake %v", got, want)
	}
}

func TestWhatWouldGoWrongIsNamed(t *testing.T) {
	closes := filters.Recommended()
	for i := range closes {
		closes[i].Resolve = filters.Resolve{}
	}
	a, b, name := "pmm-a", "pmm-b", "Disk Full"
	for what, c := range map[string]struct {
		set    []filters.Filter
		events []filters.Event
		want   []string // problems of incidents
		lost   int
	}{
		"the first recovery closes the incident of both": {
			filters.Guide(),
			[]filters.Event{sent(1, a, name, "firing", "", false), sent(2, b, name, "firing", "", false), sent(3, a, name, "resolved", "", false)},
			[]string{filters.ClosedEarly},
			0,
		},
		"each alert has its incident": {
			filters.Recommended(),
			[]filters.Event{sent(1, a, name, "firing", "", true), sent(2, b, name, "firing", "", true), sent(3, a, name, "resolved", "", true)},
			[]string{"", ""},
			0,
		},
		"nothing closes it": {
			closes,
			[]filters.Event{sent(1, a, name, "firing", "", true), sent(2, a, name, "resolved", "", true)},
			[]string{filters.NeverClosed},
			1,
		},
		"no filter takes it": {
			filters.Recommended()[:1],
			[]filters.Event{sent(1, a, name, "firing", "info", true)},
			nil, 1,
		},
	} {
		t.Run(what, func(t *testing.T) {
			f := filters.NewForecast(c.set, "")
			for _, e := range c.events {
				f.Take(e)
			}
			r := f.Report()
			var got []string
			for _, i := range r.Incidents {
				got = append(got, i.Problem)
			}
			if !slices.Equal(got, c.want) || len(r.Discards) != c.lost || r.Discarded != c.lost {
				t.Errorf("problems %q, want %q; %d discarded, want %d", got, c.want, r.Discarded, c.lost)
			}
		})
	}
}

func TestAnAnswerThatTheFiltersCannotGiveIsNoticed(t *testing.T) {
	firing, resolved := sent(1, "pmm-a", "A", "firing", "info", true).Body, sent(2, "pmm-a", "A", "resolved", "info", true).Body
	all, narrow := filters.Recommended(), filters.Recommended()[:1]
	opens := filters.Recommended()
	for i := range opens {
		opens[i].Resolve = filters.Resolve{}
	}
	for name, c := range map[string]struct {
		set    []filters.Filter
		body   []byte
		code   int
		effect string
		wrong  bool
	}{
		"opened":                           {all, firing, 201, "created", false},
		"open already":                     {all, firing, 200, "none", false},
		"closed":                           {all, resolved, 200, "resolved", false},
		"nothing to close":                 {all, resolved, 200, "none", false},
		"seen before":                      {narrow, firing, 202, "duplicate", false},
		"no word of what it did":           {narrow, firing, 200, "unknown", false},
		"discarded, as it must be":         {narrow, firing, 202, "discarded", false},
		"discarded, although it opens":     {all, firing, 202, "discarded", true},
		"discarded, although it closes":    {all, resolved, 202, "discarded", true},
		"taken, although nothing takes it": {narrow, firing, 201, "created", true},
		"closed, although nothing does":    {opens, resolved, 200, "resolved", true},
		"opened by a recovery":             {all, resolved, 201, "created", true},
	} {
		t.Run(name, func(t *testing.T) {
			if why := filters.Disagree(c.set, c.body, c.code, c.effect); (why != "") != c.wrong {
				t.Errorf("got %q", why)
			}
		})
	}
}
