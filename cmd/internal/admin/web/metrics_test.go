package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

type noSource struct{ Source }

func (noSource) Ready() error  { return nil }
func (noSource) Settings() any { return nil }

// The numbers of a service are nobody's business: /metrics is behind the same
// guard as the API, and takes the token in the two forms that scrapers can send.
func TestWhoMayReadTheMetrics(t *testing.T) {
	const token = "op3rator"
	numbers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a_metric 1\n") })
	guarded := New(Config{Source: noSource{}, Metrics: numbers, Token: func() string { return token }})
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	basic := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	tests := map[string]struct {
		handler http.Handler
		method  string
		path    string
		with    func(*http.Request)
		want    int
	}{
		"no token":                     {guarded, "GET", "/metrics", nil, 401},
		"bearer token":                 {guarded, "GET", "/metrics", bearer, 200},
		"wrong bearer token":           {guarded, "GET", "/metrics", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"x") }, 401},
		"token as password":            {guarded, "GET", "/metrics", basic("pmm", token), 200},
		"token as password, no user":   {guarded, "GET", "/metrics", basic("", token), 200},
		"wrong password":               {guarded, "GET", "/metrics", basic("pmm", "x"), 401},
		"token as user":                {guarded, "GET", "/metrics", basic(token, ""), 401},
		"password for the API":         {guarded, "GET", "/api/v1/config", basic("pmm", token), 401},
		"password for the API, hidden": {guarded, "GET", "/metrics/../api/v1/config", basic("pmm", token), 401},
		"nobody may write":             {guarded, "POST", "/metrics", bearer, 405},
		"the socket asks nobody":       {New(Config{Source: noSource{}, Metrics: numbers}), "GET", "/metrics", nil, 200},
		"another host name":            {New(Config{Source: noSource{}, Metrics: numbers, Hosts: []string{"localhost"}}), "GET", "/metrics", nil, 403},
		"none to read":                 {New(Config{Source: noSource{}}), "GET", "/metrics", nil, 404},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, nil)
			if tt.with != nil {
				tt.with(r)
			}
			w := httptest.NewRecorder()
			tt.handler.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tt.want)
			}
			if got := w.Body.String() == "a_metric 1\n"; got != (tt.want == 200) {
				t.Errorf("answered %q", w.Body)
			}
		})
	}
}
