package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

// contentPolicy lets a page load our files and talk to this service, and nothing else: what an
// alert smuggles in can neither run nor call home.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// referrerPolicy tells other sites nothing. It is not no-referrer, because then
// a browser sends its forms with "Origin: null", which nobody can tell from
// those of a stranger's page.
const referrerPolicy = "same-origin"

// permissionsPolicy takes from our pages what none of them needs.
const permissionsPolicy = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"

//go:embed site
var siteFiles embed.FS

// site serves operators. Its pages are plain HTML made here, usable without
// scripts. All that comes out of alerts goes through html/template, and through
// package text where it could deceive the eye.
type site struct {
	Config
	pages   map[string]*template.Template
	assets  string // path of the style sheet and the script; changes with them
	session sessions
	guesses *guesses
	newest  newest
	// exports are those that no line of the log tells of yet; exportLog bounds the lines.
	exports   atomic.Int64
	exportLog *rate.Limiter
}

func newSite(cfg Config) *site {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 10 << 20
	}
	if cfg.TokenRefused == nil {
		cfg.TokenRefused = func(string) {}
	}
	s := &site{Config: cfg, pages: map[string]*template.Template{}, session: newSessions(), guesses: newGuesses(cfg), exportLog: rate.NewLimiter(rate.Every(logEvery/10), 10)}
	base := template.Must(template.New("layout.html").Funcs(templateFuncs).ParseFS(siteFiles, "site/layout.html", "site/parts.html"))
	for _, name := range []string{"overview", "events", "event", "incidents", "incident", "deadletters", "replay", "job", "drop", "login", "problem"} {
		s.pages[name] = template.Must(template.Must(base.Clone()).ParseFS(siteFiles, "site/"+name+".html"))
	}
	h := sha256.New()
	for _, name := range []string{"app.css", "app.js", "icon-good.svg", "icon-idle.svg", "icon-warn.svg", "icon-bad.svg"} {
		b, err := siteFiles.ReadFile("site/" + name)
		if err != nil {
			panic(err) // it is compiled in
		}
		h.Write(b)
	}
	s.assets = "/static/" + hex.EncodeToString(h.Sum(nil)[:6])
	return s
}

// routes adds the pages.
func (s *site) routes(mux *http.ServeMux) {
	for path, do := range map[string]page{
		"/{$}": s.overview, "/events": s.events, "/events/{id}": s.event, "/incidents": s.incidents, "/incidents/{key}": s.incident,
		"/dead-letters": s.deadLetters, "/replay/{id}": s.job,
	} {
		mux.HandleFunc("GET "+path, tidy(s.page(do)))
	}
	mux.HandleFunc("GET /events/{id}/{file}", s.eventFile)
	for path, t := range map[string]task{"/replay": s.replayTask(), "/dead-letters/drop": s.dropTask()} {
		mux.HandleFunc("GET "+path, tidy(s.page(s.preview(t))))
		mux.HandleFunc("POST "+path, s.form(s.page(s.confirm(t))))
	}
	s.act(mux)
	mux.HandleFunc("GET /login", s.page(s.loginForm))
	mux.HandleFunc("POST /login", s.form(s.login))
	mux.HandleFunc("POST /logout", s.form(s.logout))
	mux.HandleFunc("GET /static/{version}/{name}", s.static)
}

// isPage reports whether the path is one that a person opens in a browser. The
// others are for programs, which send the token itself.
func isPage(p string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	return slices.Contains([]string{"", "events", "incidents", "dead-letters", "replay", "pause", "resume", "probe", "login", "logout", "static"}, first)
}

func (s *site) static(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	b, err := fs.ReadFile(siteFiles, "site/"+name)
	if err != nil || path.Ext(name) == ".html" {
		s.refuse(w, r, wrong{errors.New("there is no such file"), http.StatusNotFound})
		return
	}
	// Nothing in it is anybody's secret, and its path changes when it does.
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
}

// frame is what every page has around its own content.
type frame struct {
	Name   string // of the template
	Code   int    // of the answer; 0 = 200
	Title  string
	Here   string // the entry of the menu that this page belongs to
	Assets string
	Now    time.Time
	Status admin.Status
	Mark   string // of the state shown
	Login  bool   // there is a session to end
	Bare   bool   // nobody we know asks: show nothing of the state
	Page   any

	next string // the page to go to instead: what this one was for is done
}

// page makes what a page shows. An error is shown as a page of its own.
type page func(r *http.Request) (frame, error)

func (s *site) page(do page) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.unchanged(r) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		f, err := do(r)
		switch {
		case err != nil:
			s.refuse(w, r, err)
		case f.next != "":
			http.Redirect(w, r, f.next, http.StatusSeeOther)
		default:
			s.show(w, r, f)
		}
	}
}

func (s *site) show(w http.ResponseWriter, r *http.Request, f frame) {
	f.Assets, f.Now = s.assets, time.Now().UTC()
	f.Login = s.token() != "" && s.session.find(r, s.token())
	if f.Bare = !s.knows(r); !f.Bare {
		st, err := s.Source.Status(r.Context())
		if err != nil {
			st.Store.Problem = err.Error()
		}
		f.Status, f.Mark = st, mark(st, s.Source.Changes())
	}
	var out bytes.Buffer
	if err := s.pages[f.Name].ExecuteTemplate(&out, "layout.html", f); err != nil {
		s.Logger.ErrorContext(r.Context(), "a page cannot be shown", "component", "admin", "page", f.Name, "err", err)
		http.Error(w, "this page cannot be shown; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(cmp.Or(f.Code, http.StatusOK))
	_, _ = w.Write(out.Bytes())
}

func problemTitle(code int) string {
	switch code {
	case http.StatusNotFound:
		return "Not found"
	case http.StatusBadRequest:
		return "That cannot be asked"
	case http.StatusUnauthorized:
		return "Not logged in"
	case http.StatusForbidden:
		return "Refused"
	case http.StatusTooManyRequests:
		return "Too many tries"
	}
	return "Not now"
}

// refuse is a page that says why something was not done.
func (s *site) refuse(w http.ResponseWriter, r *http.Request, err error) {
	code := codeOf(err)
	if errors.Is(err, admin.ErrNotFound) {
		err = errors.New("there is no such event or incident, or no longer: settled events go after --retention")
	}
	s.show(w, r, frame{Name: "problem", Code: code, Title: problemTitle(code), Page: err.Error()})
}

// deny says why something was not done, to a person or to a program.
func (s *site) deny(w http.ResponseWriter, r *http.Request, err error) {
	if isPage(r.URL.Path) {
		s.refuse(w, r, err)
		return
	}
	fail(w, codeOf(err), err)
}

// maxForm bounds a form: a page of chosen ids is some kilobytes.
const maxForm = 1 << 20

// form reads a form before next sees it.
func (s *site) form(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			s.refuse(w, r, wrong{error: errors.New("the form cannot be read")})
			return
		}
		next(w, r)
	}
}

// asked are the filters in the URL of a page.
type asked struct {
	Query url.Values // as admin.ParseFilter takes them, nothing empty in it
	F     event.Filter
	Limit int
	Err   error
}

// code is the status of a page with these filters.
func (a asked) code() int {
	if a.Err != nil {
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// pageLimit is how many events a page shows.
const pageLimit = 50

// ask reads filters, and before: where the page begins.
func ask(q url.Values) asked {
	a := asked{Query: q}
	before := q.Get("before")
	q.Del("before")
	if a.F, a.Limit, a.Err = admin.ParseFilter(q); a.Err == nil && before != "" {
		p := &a.F.Before
		n, err := fmt.Sscanf(before, "%d.%d.%d.%s", &p.Seq, &p.Note, &p.Item, &a.F.BeforeDay)
		if _, derr := time.Parse(time.DateOnly, a.F.BeforeDay); n != 4 || err != nil || derr != nil {
			a.Err = fmt.Errorf("before %q is not where a page begins", before)
		}
	}
	if !q.Has("limit") || a.Limit > 500 {
		a.Limit = pageLimit
	}
	return a
}

// tidy redirects to the same page without empty parameters and blanks around them, so
// that the address of a filtered list can be handed on.
func tidy(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, clean := r.URL.Query(), url.Values{}
		for name, values := range q {
			for _, v := range values {
				if v = strings.TrimSpace(v); v != "" {
					clean.Add(name, v)
				}
			}
		}
		if maps.EqualFunc(q, clean, slices.Equal) {
			next(w, r)
			return
		}
		http.Redirect(w, r, address(r, clean), http.StatusSeeOther)
	}
}

// address is that of the page with other parameters.
func address(r *http.Request, q url.Values) string {
	return (&url.URL{Path: r.URL.Path, RawQuery: q.Encode()}).String()
}

// listed is a page of events.
type listed struct {
	Rows  []*event.Record
	Older string // URL of the next page, "" when there is none
	First string // URL of the first page, "" when this is it
}

// list lists what was asked for; nothing where that cannot be asked.
func (s *site) list(r *http.Request, a asked) (l listed, err error) {
	if a.code() != http.StatusOK {
		return l, nil
	}
	if l.Rows, err = s.Source.Events(r.Context(), a.F, a.Limit+1); err != nil {
		return l, err
	}
	if len(l.Rows) > a.Limit {
		l.Rows = l.Rows[:a.Limit]
		pos, day := behind(l.Rows[a.Limit-1])
		q := maps.Clone(a.Query)
		q.Set("before", fmt.Sprintf("%d.%d.%d.%s", pos.Seq, pos.Note, pos.Item, day))
		l.Older = address(r, q)
	}
	if a.F.Before != (event.Position{}) {
		l.First = address(r, a.Query)
	}
	return l, nil
}
