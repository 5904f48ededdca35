package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pmm-callgoose/cmd/internal/admin"
)

// guard checks the Host header against DNS rebinding, then the token, then that
// a call that changes something is meant. The two health checks need no token:
// they say nothing but yes or no.
func (s *site) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Security-Policy", contentPolicy)
		w.Header().Set("Referrer-Policy", referrerPolicy)
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Set("Permissions-Policy", permissionsPolicy)
		if forwarded(r) != "" { // checked where it was asked
			next.ServeHTTP(w, r)
			return
		}
		if len(s.Hosts) > 0 && !s.knownHost(r.Host) {
			fail(w, http.StatusForbidden, fmt.Errorf("unknown Host header; call this address by one of %s", strings.Join(s.Hosts, ", ")))
			return
		}
		shown, ok := s.admits(w, r)
		if !ok {
			return
		}
		if !shown && !isSafe(r.Method) {
			if err := s.mayChange(r); err != nil {
				s.deny(w, r, wrong{err, http.StatusForbidden})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// mayChange says why a request that does not hold the token may change nothing, nil
// when it may.
func (s *site) mayChange(r *http.Request) error {
	if !meant(r) {
		return errors.New("a call that changes something needs the operators' token or the header " + admin.Intent + ": 1; a form must come from a page of this service")
	}
	if s.token() != "" {
		return nil // its session has shown it
	}
	return stranger(r)
}

// admits checks the token, and answers by itself where it is missing. shown
// reports whether the request itself holds it.
func (s *site) admits(w http.ResponseWriter, r *http.Request) (shown, ok bool) {
	want := s.token()
	if want == "" || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return false, true
	}
	got, tried := credential(r)
	if !tried {
		// The API takes no cookies: what a browser sends by itself counts for pages only.
		open := r.URL.Path == "/login" || strings.HasPrefix(r.URL.Path, "/static/")
		if open || isPage(r.URL.Path) && s.session.find(r, want) {
			return false, true
		}
	} else if right, limited := s.guesses.judge(r, same(got, want)); limited {
		w.Header().Set("Retry-After", "2")
		fail(w, http.StatusTooManyRequests, errors.New("too many wrong tokens from your address"))
		return false, false
	} else if right {
		return true, true
	}
	if isPage(r.URL.Path) {
		s.askLogin(w, r)
		return false, false
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="pmm-callgoose"`)
	fail(w, http.StatusUnauthorized, errors.New("the operators' token is missing or wrong (Authorization: Bearer …, --admin-token-file)"))
	return false, false
}

// credential is the token that a request shows. /metrics takes it as password
// too, under any user name: pmm-admin can send nothing else.
func credential(r *http.Request) (token string, tried bool) {
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return token, true
	}
	if _, password, ok := r.BasicAuth(); ok && r.URL.Path == "/metrics" {
		return password, true
	}
	return "", false
}

func (s *site) knownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	return slices.ContainsFunc(s.Hosts, func(known string) bool { return strings.EqualFold(host, known) })
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// meant reports whether a call that changes something cannot be one that
// somebody else's form, webhook or page made. CrossOriginProtection has refused
// those that say so; here the caller has to say that it is none.
func meant(r *http.Request) bool {
	if local(r) || r.Header.Get(admin.Intent) != "" || r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return true
	}
	from, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && from.Host != "" && from.Host == r.Host
}

// local reports whether the request came through the Unix socket.
func local(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && addr.Network() == "unix"
}

// same compares in a time that depends on neither content nor length.
func same(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// The bounds of guessing: guessAtOnce tries, then one every guessEvery, for each
// address, and behind a proxy viaProxy times that for all of its clients. One
// program with an old token that asks every few seconds locks nobody out.
const (
	guessAtOnce = 5
	guessEvery  = 2 * time.Second
	viaProxy    = 20
	maxGuessers = 10_000
	logEvery    = time.Minute
)

// guesses bounds and logs the tries of a wrong token. Only wrong ones count.
type guesses struct {
	log  *slog.Logger
	tell func(reason string)

	mu    sync.Mutex // guards the rest
	tries map[guesser]*rate.Limiter
	count int    // refused and not logged yet
	last  string // who was refused last
	timer *time.Timer
}

// guesser is who tries: an address, and the client that a proxy there names.
type guesser struct{ peer, client string }

func newGuesses(cfg Config) *guesses {
	return &guesses{log: cfg.Logger, tell: cfg.TokenRefused, tries: map[guesser]*rate.Limiter{}}
}

// judge counts a try. A right one from an address that has guessed too often is
// refused as well: otherwise guessing would go on unhindered.
func (g *guesses) judge(r *http.Request, right bool) (ok, limited bool) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	peer := network(host)
	// The last entry is the one that the proxy itself made.
	forwarded := r.Header.Get("X-Forwarded-For")
	client := network(strings.TrimSpace(forwarded[strings.LastIndexByte(forwarded, ',')+1:]))
	g.mu.Lock()
	defer g.mu.Unlock()
	var limits []*rate.Limiter
	if client != "" {
		limits = append(limits, g.limit(guesser{peer, "all"}, viaProxy))
	}
	if client == "" || limits[0].Tokens() >= 1 { // else names without end would push out what is remembered
		limits = append(limits, g.limit(guesser{peer, client}, 1))
	}
	for _, l := range limits {
		limited = limited || l.Tokens() < 1
	}
	if right && !limited {
		return true, false
	}
	for _, l := range limits {
		l.Allow()
	}
	reason := "wrong"
	if limited {
		reason = "limited"
	}
	g.tell(reason)
	g.count, g.last = g.count+1, r.RemoteAddr
	if g.timer == nil {
		g.warn()
		g.timer = time.AfterFunc(logEvery, g.flush)
	}
	return false, limited
}

func (g *guesses) limit(who guesser, times int) *rate.Limiter {
	l := g.tries[who]
	if l == nil {
		if len(g.tries) >= maxGuessers {
			clear(g.tries)
		}
		l = rate.NewLimiter(rate.Every(guessEvery/time.Duration(times)), guessAtOnce*times)
		g.tries[who] = l
	}
	return l
}

// flush logs what was refused in the last minute.
func (g *guesses) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer = nil; g.count > 0 {
		g.warn()
		g.timer = time.AfterFunc(logEvery, g.flush)
	}
}

// warn holds mu.
func (g *guesses) warn() {
	g.log.Warn("a wrong operators' token was refused", "component", "admin", "count", g.count, "remote", g.last)
	g.count = 0
}

// network is the address, of IPv6 the network of 64 bits; "" when host is none.
func network(host string) string {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	if addr = addr.WithZone("").Unmap(); addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	return addr.String()
}
