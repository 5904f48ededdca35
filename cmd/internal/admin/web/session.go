package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sessions are the browsers that are logged in. They live in memory: a restart
// asks for the token again, and so does a new token.
type sessions struct {
	mu    *sync.Mutex
	known map[[32]byte]session // by the hash of the id in the cookie
}

type session struct {
	ends  time.Time
	token [32]byte // hash of the token it was opened with
}

// The bounds of sessions.
const (
	sessionFor  = 12 * time.Hour
	maxSessions = 1000
)

func newSessions() sessions {
	return sessions{mu: &sync.Mutex{}, known: map[[32]byte]session{}}
}

// sessionCookie is the cookie of a session. Browsers send the cookies of a host
// name to each of its ports, so the port is in the name; where there is TLS, here
// or at a proxy, no other service of that name can set it (__Host-).
func sessionCookie(r *http.Request) *http.Cookie {
	c := &http.Cookie{Name: "pmm_callgoose", Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		c.Name += "_" + strconv.Itoa(addr.Port)
	}
	if c.Secure = r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"); c.Secure {
		c.Name = "__Host-" + c.Name
	}
	return c
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
	c, err := r.Cookie(sessionCookie(r).Name)
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
	if c, err := r.Cookie(sessionCookie(r).Name); err == nil {
		s.mu.Lock()
		delete(s.known, sha256.Sum256([]byte(c.Value)))
		s.mu.Unlock()
	}
}

// token is what operators must know, "" when nothing is asked for.
func (s *site) token() string {
	if s.Token == nil {
		return ""
	}
	return s.Token()
}

// knows reports whether the request comes from an operator: it shows the token or has a
// session, nothing is asked for, or another instance has checked it.
func (s *site) knows(r *http.Request) bool {
	t := s.token()
	got, _ := credential(r)
	return t == "" || forwarded(r) != "" || same(got, t) || s.session.find(r, t)
}

// askLogin answers somebody who is not logged in.
func (s *site) askLogin(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		s.refuse(w, r, wrong{errors.New("you are not logged in, or no longer: log in and do it again"), http.StatusUnauthorized})
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

// ownPage is next if it is a page of ours, else the overview.
func ownPage(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t#") || !isPage(path.Clean(u.Path)) {
		return "/"
	}
	return next
}

func (s *site) loginForm(r *http.Request) (frame, error) {
	next := ownPage(r.URL.Query().Get("next"))
	if s.knows(r) {
		return frame{next: next}, nil
	}
	return frame{Name: "login", Title: "Log in", Page: loginPage{Next: next}}, nil
}

func (s *site) login(w http.ResponseWriter, r *http.Request) {
	want := s.token()
	next := ownPage(r.PostForm.Get("next"))
	if want == "" {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	right, limited := s.guesses.judge(r, same(strings.TrimSpace(r.PostForm.Get("token")), want))
	if limited {
		w.Header().Set("Retry-After", "2")
		s.refuse(w, r, wrong{errors.New("too many wrong tokens from your address; wait some seconds and try again"), http.StatusTooManyRequests})
		return
	}
	if !right {
		s.show(w, r, frame{Name: "login", Code: http.StatusUnauthorized, Title: "Log in", Page: loginPage{Next: next, Problem: "That is not the operators' token."}})
		return
	}
	s.session.end(r)
	c := sessionCookie(r)
	c.Value, c.MaxAge = s.session.open(want, time.Now()), int(sessionFor.Seconds())
	http.SetCookie(w, c)
	s.did(r, "log in", 1)
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	s.session.end(r)
	c := sessionCookie(r)
	c.MaxAge = -1
	http.SetCookie(w, c)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
