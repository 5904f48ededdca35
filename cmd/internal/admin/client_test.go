package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/text"
)

// Whoever answers at --admin-url may be somebody else.
func TestWhatTheOtherSideSaysIsHarmless(t *testing.T) {
	const token = "operators-token-0f-the-test"
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/status":
			http.Redirect(w, r, other.URL+"/\u202e", http.StatusTemporaryRedirect)
		case "/api/v1/config":
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"error":"\u001b[2J you sent %s\u202e%s"}`, r.Header.Get("Authorization"), strings.Repeat("x", 50_000))
		case "/readyz":
			for err := error(nil); err == nil; { // without end
				_, err = io.WriteString(w, strings.Repeat(" ", 1<<20))
			}
		}
	}))
	defer srv.Close()
	c, err := NewURLClient(srv.URL, token, "")
	if err != nil {
		t.Fatal(err)
	}
	_, redirected := c.Status(t.Context())
	_, echoed := Ask[struct{}](t.Context(), c, "GET /api/v1/config", nil)
	_, endless := Ask[struct{}](t.Context(), c, "GET /readyz", nil)
	for _, err := range []error{redirected, echoed, endless} {
		if err == nil || strings.ContainsFunc(err.Error(), text.Deceives) || strings.Contains(err.Error(), token) || len(err.Error()) > 4000 {
			t.Errorf("%.200q", fmt.Sprint(err))
		}
	}
	if elsewhere > 0 || !strings.Contains(redirected.Error(), "307") {
		t.Errorf("a redirect was followed: %v", redirected)
	}
}

func TestAnotherProgramThatAnswersIsNoService(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"a page":       func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no such page": http.NotFound,
	} {
		srv := httptest.NewServer(answer)
		c, err := NewURLClient(srv.URL, "", "")
		if err == nil {
			_, err = c.Status(t.Context())
		}
		if !errors.Is(err, ErrNoService) || !strings.Contains(err.Error(), "another program") {
			t.Errorf("%s: %v", name, err)
		}
		srv.Close()
	}
}

func TestAServiceOfAnotherVersionIsNamedAsSuch(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"it has no such path": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":"no such path"}`, http.StatusNotFound)
		},
		"it answers otherwise": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"queued":"many"}`) },
	} {
		srv := httptest.NewServer(answer)
		c, err := NewURLClient(srv.URL, "", "")
		if err == nil {
			_, err = c.Status(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), "another version") || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%s: %v", name, err)
		}
		srv.Close()
	}
}

func TestTheClientSaysThatItMeansIt(t *testing.T) {
	var got http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		_, _ = io.WriteString(w, `{}`)
	}))
	defer srv.Close()
	c, err := NewURLClient(srv.URL, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Ask[Plan](t.Context(), c, "POST /api/v1/replay", url.Values{"all": {"1"}}); err != nil || got.Get(Intent) == "" {
		t.Errorf("%v, %v", got, err)
	}
	srv.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoService) {
		t.Errorf("nobody there: %v", err)
	}
}

// A process that is stopped takes connections all the same.
func TestAServiceThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{base: "http://admin", where: "there", http: http.Client{Transport: silent{}}}
		began := time.Now()
		_, status := c.Status(t.Context())
		_, events := Ask[[]Row](t.Context(), c, "GET /api/v1/events", nil)
		_, health := Ask[struct{}](t.Context(), c, "GET /healthz", nil)
		for _, err := range []error{status, events, health} {
			if !errors.Is(err, ErrSilent) || errors.Is(err, ErrNoService) {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("waited for %s", took)
		}
	})
}

// A directory, for example.
func TestWhatCannotBeReadIsNoMissingService(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer srv.Close()
	c, err := NewURLClient(srv.URL, "", "")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err = c.Import(t.Context(), dir); !errors.Is(err, syscall.EISDIR) || errors.Is(err, ErrNoService) {
		t.Error(err)
	}
}

// silent takes requests and answers none.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}
