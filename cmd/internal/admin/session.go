package admin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sessions are the browsers that are logged in. They live in memory: a restart
// asks for the token again, and so does a new token.
type sessions struct {
	mu    *sync.Mutex
	known map[[32]byte]session         // by the hash of the id in the cookie
	tries map[netip.Addr]*rate.Limiter // failed log-ins by address
}

type session struct {
	ends  time.Time
	token [32]byte // hash of the token it was opened with
}

// The bounds of sessions. Somebody who guesses gets five tries at once, then
// one every ten seconds.
const (
	sessionCookie = "pmm_callgoose_session"
	sessionFor    = 12 * time.Hour
	maxSessions   = 1000
	maxGuessers   = 10_000
	guessEvery    = 10 * time.Second
	guessAtOnce   = 5
)

func newSessions() sessions {
	return sessions{mu: &sync.Mutex{}, known: map[[32]byte]session{}, tries: map[netip.Addr]*rate.Limiter{}}
}

// open begins a session and returns its id.
func (s sessions) open(token string, now time.Time) string {
	id := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxSessions {
		for k, one := range s.known {
			if now.After(one.ends) {
				delete(s.known, k)
			}
		}
		if len(s.known) >= maxSessions {
			clear(s.known)
		}
	}
	s.known[sha256.Sum256([]byte(id))] = session{now.Add(sessionFor), sha256.Sum256([]byte(token))}
	return id
}

// find reports whether the request comes with a session of this token.
func (s sessions) find(r *http.Request, token string) bool {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return false
	}
	s.mu.Lock()
	one, ok := s.known[sha256.Sum256([]byte(c.Value))]
	s.mu.Unlock()
	want := sha256.Sum256([]byte(token))
	return ok && time.Now().Before(one.ends) && subtle.ConstantTimeCompare(one.token[:], want[:]) == 1
}

func (s sessions) end(r *http.Request) {
	if c, err := r.Cookie(sessionCookie); err == nil {
		s.mu.Lock()
		delete(s.known, sha256.Sum256([]byte(c.Value)))
		s.mu.Unlock()
	}
}

// mayGuess reports whether this address may try a token now. IPv6 addresses
// count by their network of 64 bits.
func (s sessions) mayGuess(r *http.Request) bool {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	addr, err := netip.ParseAddr(host)
	if err == nil && addr.Is6() && !addr.Is4In6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.tries[addr]
	if limit == nil {
		if len(s.tries) >= maxGuessers {
			clear(s.tries)
		}
		limit = rate.NewLimiter(rate.Every(guessEvery), guessAtOnce)
		s.tries[addr] = limit
	}
	return limit.Allow()
}

// token is what operators must know, "" when nothing is asked for.
func (s *site) token() string {
	if s.Token == nil {
		return ""
	}
	return s.Token()
}

// formToken is what a form must carry: made for one session and one run of the
// service, so that no other page can know it. Logging in knows no session: a
// browser that came from another site keeps its cookie back once.
func (s *site) formToken(r *http.Request) string {
	mac := hmac.New(sha256.New, s.secret)
	if c, err := r.Cookie(sessionCookie); err == nil && r.URL.Path != "/login" {
		mac.Write([]byte(c.Value))
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// admits reports whether the request may see a page without the token itself.
// The API takes no cookies: what a browser sends by itself counts for pages only.
func (s *site) admits(r *http.Request, token string) bool {
	if !isPage(r.URL.Path) {
		return false
	}
	return r.URL.Path == "/login" || strings.HasPrefix(r.URL.Path, "/static/") || s.session.find(r, token)
}

// askLogin answers somebody who is not logged in.
func (s *site) askLogin(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Path == "/live" {
		s.problemBare(w, r, http.StatusUnauthorized, errors.New("you are not logged in (any more): log in and do it again"))
		return
	}
	to := "/login"
	if r.URL.Path != "/" {
		to += "?next=" + url.QueryEscape(r.URL.RequestURI())
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

type loginPage struct {
	Next    string
	Problem string
}

// local is next if it is a page of ours, else the overview.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t#") || !isPage(path.Clean(u.Path)) {
		return "/"
	}
	return next
}

func (s *site) loginForm(w http.ResponseWriter, r *http.Request) {
	next := local(r.URL.Query().Get("next"))
	if t := s.token(); t == "" || s.session.find(r, t) {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	s.show(w, r, http.StatusOK, "login", frame{Title: "Log in", Bare: true, Page: loginPage{Next: next}})
}

func (s *site) login(w http.ResponseWriter, r *http.Request) {
	want := s.token()
	next := local(r.PostForm.Get("next"))
	if want == "" {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	if !s.session.mayGuess(r) {
		w.Header().Set("Retry-After", "10")
		s.problemBare(w, r, http.StatusTooManyRequests, errors.New("too many log-ins from your address; wait ten seconds and try again"))
		return
	}
	if !same(strings.TrimSpace(r.PostForm.Get("token")), want) {
		s.Logger.WarnContext(r.Context(), "a log-in with a wrong token", "component", "admin", "remote", r.RemoteAddr)
		s.show(w, r, http.StatusUnauthorized, "login", frame{Title: "Log in", Bare: true, Page: loginPage{Next: next, Problem: "That is not the operators' token."}})
		return
	}
	s.session.end(r)
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: s.session.open(want, time.Now()), Path: "/",
		MaxAge: int(sessionFor.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode,
		// Plain HTTP has to work too: there is no TLS on this address. Behind a
		// proxy that has it, the cookie stays on it.
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	})
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	s.session.end(r)
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
