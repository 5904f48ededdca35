package callgoosetest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"pmm-callgoose/worker/callgoose/filters"
)

// SecondTrigger says what a trigger does while an incident of its value is open.
type SecondTrigger int

// Callgoose does not say which of these it is.
const (
	SecondIgnored   SecondTrigger = iota // 200, all flags false
	SecondDuplicate                      // answered as a duplicate
	SecondIncident                       // opens another incident
)

// Config is a Callgoose service. The zero value is an open one with the
// recommended filters.
type Config struct {
	Tokens  []string         // accepted as bearer or as the parameter "token"; none = no token needed
	Strict  bool             // refuse a request with both forms; otherwise the header counts
	Filters []filters.Filter // nil = the recommended ones

	// DuplicateWindow is how long the same bytes are a duplicate, from the first of a
	// series on; 0 = nothing is a duplicate.
	DuplicateWindow time.Duration
	DuplicateStatus int // 0 = 200; 201, 202
	SecondTrigger   SecondTrigger
	ResolveOne      bool // a resolve closes the oldest incident of its value, not all
	UnmatchedStatus int  // of a resolve that finds nothing open: 0 = 200; 202

	// KeepBodies keeps every request with its body. Without it no body is kept, and
	// only the latest 10,000 requests and closed incidents; Check still sees all.
	KeepBodies bool
	// Observe is called after each request, from its goroutine.
	Observe func(Request)
}

// kept is how many requests and closed incidents remain without KeepBodies.
const kept = 10_000

// How says what became of a request's answer.
type How string

// A request that was Lost was processed, one that was Cut was not.
const (
	Answered How = "answered"
	Lost     How = "lost"
	Cut      How = "cut"
)

// Request is one request as received.
type Request struct {
	Time        time.Time `json:"time"`
	Method      string    `json:"method"`
	Path        string    `json:"path"`
	From        string    `json:"from"`
	Auth        string    `json:"auth"` // bearer, query, both, none
	ContentType string    `json:"content_type"`
	IncidentKey string    `json:"incident_key"`
	EventID     string    `json:"event_id"`
	Status      string    `json:"status"` // of the event
	Body        []byte    `json:"body,omitempty"`
	How         How       `json:"how"`
	HTTPStatus  int       `json:"http_status"` // answered, or meant to be; 0 = none
	Effect      string    `json:"effect"`      // created, resolved, duplicate, none, discarded; "" = not processed
	CallID      string    `json:"call_id,omitempty"`

	turn int // how many requests of its incident key had begun with it
}

// Accepted says that the answer was a 2xx, whether or not it arrived.
func (r Request) Accepted() bool { return r.HTTPStatus/100 == 2 }

// Incident is what an operator of Callgoose would see.
type Incident struct {
	ID     string `json:"id"`
	Mapped string `json:"mapped"` // "" = no request can close it
	// Keys are the incident keys of the events that opened it or would have, had it
	// not been open.
	Keys        []string  `json:"incident_keys"`
	Title       string    `json:"title"`
	Description string    `json:"description"`
	Urgency     string    `json:"urgency"`
	OpenedAt    time.Time `json:"opened_at"`
	OpenedBy    string    `json:"opened_by"`    // call id
	OpenedEvent string    `json:"opened_event"` // event id
	ClosedAt    time.Time `json:"closed_at,omitzero"`
	ClosedBy    string    `json:"closed_by,omitempty"` // call id
	ClosedEvent string    `json:"closed_event,omitempty"`
}

// Stats are totals since the start or the last Reset.
type Stats struct {
	Requests int `json:"requests"`
	Accepted int `json:"accepted"` // 2xx, with repeats
	Events   int `json:"events"`   // different events accepted
	Open     int `json:"open"`     // incidents
}

// Fake is a Callgoose service behind a process endpoint. Safe concurrently.
type Fake struct {
	cfg  Config
	seed maphash.Seed

	mu        sync.Mutex // guards all below
	tokens    []string
	filters   []filters.Filter
	standing  Failure
	script    []rule // without a match
	rules     []rule
	changed   chan struct{} // closed when what fails has changed
	stats     Stats
	calls     int
	requests  []*Request
	incidents []*Incident
	incidentN int
	open      map[string][]*Incident // by mapped value, oldest first
	seen      map[string]bool        // bodies inside the window, by their sum
	seenOrder []sighting
	events    map[string]*history
	begun     map[string]int // requests by incident key
}

type sighting struct {
	key string
	at  time.Time
}

// New makes a fake. It panics when a filter breaks the limits of Callgoose.
func New(cfg Config) *Fake {
	if cfg.Filters == nil {
		cfg.Filters = filters.Recommended()
	}
	cfg.DuplicateStatus, cfg.UnmatchedStatus = cmp.Or(cfg.DuplicateStatus, http.StatusOK), cmp.Or(cfg.UnmatchedStatus, http.StatusOK)
	f := &Fake{cfg: cfg, seed: maphash.MakeSeed(), tokens: cfg.Tokens, changed: make(chan struct{})}
	f.SetFilters(cfg.Filters)
	f.Reset()
	return f
}

// Reset forgets requests and incidents and stops failing; settings stay.
func (f *Fake) Reset() {
	f.Fail(Failure{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.stats, f.requests, f.incidents, f.seenOrder = nil, Stats{}, nil, nil, nil
	f.open, f.seen, f.events, f.begun = map[string][]*Incident{}, map[string]bool{}, map[string]*history{}, map[string]int{}
}

// SetTokens replaces the accepted tokens; none = no token needed.
func (f *Fake) SetTokens(tokens ...string) { f.mu.Lock(); f.tokens = tokens; f.mu.Unlock() }

// SetFilters replaces the filters. It panics when one breaks the limits of Callgoose.
func (f *Fake) SetFilters(list []filters.Filter) {
	if err := filters.Validate(list); err != nil {
		panic("callgoosetest: " + err.Error())
	}
	f.mu.Lock()
	f.filters = list
	f.mu.Unlock()
}

// Received returns the requests in order of arrival.
func (f *Fake) Received() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return values(f.requests)
}

// Incidents returns the incidents in order of creation.
func (f *Fake) Incidents() []Incident {
	f.mu.Lock()
	defer f.mu.Unlock()
	return values(f.incidents)
}

func values[T any](pointers []*T) []T {
	list := make([]T, len(pointers))
	for i, p := range pointers {
		list[i] = *p
	}
	return list
}

// Open returns the open incidents in order of creation.
func (f *Fake) Open() []Incident {
	return slices.DeleteFunc(f.Incidents(), func(i Incident) bool { return i.ClosedBy != "" })
}

// OpenByKey returns the open incidents by incident key. Where filters map on the
// name, one incident may stand under several keys.
func (f *Fake) OpenByKey() map[string][]Incident {
	byKey := map[string][]Incident{}
	for _, i := range f.Open() {
		for _, key := range i.Keys {
			byKey[key] = append(byKey[key], i)
		}
	}
	return byKey
}

// Stats returns the totals.
func (f *Fake) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// ServeHTTP receives one request.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_fake/") {
		f.control(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body)) // for hooks
	doc := filters.Decode(body)
	rec, hist := f.receive(r, body, doc, err == nil)
	defer func() {
		if f.cfg.Observe != nil {
			f.mu.Lock()
			seen := *rec
			f.mu.Unlock()
			f.cfg.Observe(seen)
		}
	}()
	if err != nil { // the client left, or never was HTTP
		cut(w, false)
		return
	}
	failure, ok := f.nextFailure(r.Context(), rec.IncidentKey, body)
	if !ok {
		cut(w, false)
		return
	}
	resp := failure.response(r, body)
	f.mu.Lock()
	switch {
	case resp != nil:
		rec.HTTPStatus = resp.code()
	case failure.Mode != Reset:
		resp = f.process(rec, r, body, doc)
	}
	if rec.Accepted() {
		f.stats.Accepted++
		f.accept(rec, hist)
	}
	if resp != nil {
		rec.How = Lost // until the answer goes out
	}
	f.mu.Unlock()
	present := wait(r.Context(), failure.Delay)
	if !present || failure.Mode == Reset || failure.Mode == LoseReply {
		cut(w, failure.Mode == Reset)
		return
	}
	f.mu.Lock()
	rec.How = Answered // first: a caller that has the answer must see this
	hist.answered(rec)
	hist.overlapped = hist.overlapped || rec.turn < f.begun[rec.IncidentKey]
	f.mu.Unlock()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.code())
	_, _ = w.Write(resp.Body)
}

func (r *Response) code() int { return cmp.Or(r.Status, http.StatusOK) }

// receive records a request; until it is processed it counts as Cut.
func (f *Fake) receive(r *http.Request, body []byte, doc any, complete bool) (*Request, *history) {
	q := r.URL.Query()
	rec := &Request{
		Time: time.Now(), Method: r.Method, Path: r.URL.Path, From: q.Get("from"),
		ContentType: r.Header.Get("Content-Type"), How: Cut,
		IncidentKey: filters.Path(`"incident_key"`).Value(doc), EventID: filters.Path(`"event_id"`).Value(doc), Status: filters.Path(`"status"`).Value(doc),
	}
	switch header, query := r.Header.Get("Authorization") != "", q.Has("token"); {
	case header && query:
		rec.Auth = "both"
	case header:
		rec.Auth = "bearer"
	case query:
		rec.Auth = "query"
	default:
		rec.Auth = "none"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Requests++
	f.requests = append(f.requests, rec)
	if f.cfg.KeepBodies {
		rec.Body = body
	} else if len(f.requests) >= 2*kept {
		f.requests = slices.Clone(f.requests[len(f.requests)-kept:])
	}
	if !complete {
		return rec, &history{}
	}
	if rec.IncidentKey != "" {
		f.begun[rec.IncidentKey]++
		rec.turn = f.begun[rec.IncidentKey]
	}
	return rec, f.note(rec, maphash.Bytes(f.seed, body))
}

// process does what Callgoose does with a request; f.mu is held.
func (f *Fake) process(rec *Request, r *http.Request, body []byte, doc any) *Response {
	resp := &Response{}
	switch {
	case !strings.HasSuffix(r.URL.Path, "/process"):
		resp = reply(http.StatusNotFound, nil, map[string]string{"error": "not found"})
	case r.Method != http.MethodPost:
		resp = reply(http.StatusMethodNotAllowed, http.Header{"Allow": {"POST"}}, map[string]string{"error": "method not allowed"})
	case !f.authorised(rec, r):
		resp = reply(http.StatusUnauthorized, nil, map[string]string{"error": "unauthorized"})
	default:
		f.calls++
		rec.CallID = fmt.Sprintf("call-%06d", f.calls)
		answer := answer{ID: rec.CallID}
		status := http.StatusAccepted
		rec.Effect = "discarded"
		if textual(r) {
			status, rec.Effect = f.filter(&answer, rec, body, doc)
		}
		resp = reply(status, nil, answer)
	}
	rec.HTTPStatus = resp.Status
	return resp
}

// answer is the documented body.
type answer struct {
	ID        string `json:"id"`
	Triggered struct {
		Created   bool `json:"created"`
		Duplicate bool `json:"duplicate"`
	} `json:"triggered"`
	Resolved struct {
		Resolved  bool `json:"resolved"`
		Duplicate bool `json:"duplicate"`
	} `json:"resolved"`
}

func reply(status int, h http.Header, v any) *Response {
	if h == nil {
		h = http.Header{}
	}
	h.Set("Content-Type", "application/json")
	text, _ := json.Marshal(v) // strings and booleans
	return &Response{Status: status, Header: h, Body: append(text, '\n')}
}

func (f *Fake) authorised(rec *Request, r *http.Request) bool {
	if rec.Auth == "both" && f.cfg.Strict {
		return false
	}
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if rec.Auth == "query" {
		token, bearer = r.URL.Query().Get("token"), true
	}
	return len(f.tokens) == 0 || bearer && slices.Contains(f.tokens, token)
}

// textual says whether Callgoose reads the payload at all.
func textual(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && r.Header.Get("Content-Encoding") == "" &&
		(strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "json") || strings.HasSuffix(t, "xml"))
}

// filter applies the first resolve and the first trigger that pass, in this order:
// a request that passes both closes what was open, then opens a new incident.
func (f *Fake) filter(a *answer, rec *Request, body []byte, doc any) (status int, effect string) {
	status, effect = http.StatusAccepted, "discarded"
	trigger, resolve := filters.First(f.filters, doc)
	if resolve >= 0 {
		mapped := f.filters[resolve].Resolve.MapWith.Value(doc)
		status, effect = f.cfg.UnmatchedStatus, "none"
		if f.repeated("resolve", body) {
			a.Resolved.Duplicate = true
		} else {
			for n := len(f.open[mapped]); n > 0; n-- {
				a.Resolved.Resolved = true
				f.closeIncident(f.open[mapped][0], rec)
				if f.cfg.ResolveOne {
					break
				}
			}
		}
	}
	if trigger >= 0 {
		t := f.filters[trigger].Trigger
		mapped := t.MapWith.Value(doc)
		status, effect = http.StatusOK, "none"
		switch {
		case f.repeated("trigger", body):
			a.Triggered.Duplicate = true
		case len(f.open[mapped]) > 0 && f.cfg.SecondTrigger != SecondIncident:
			a.Triggered.Duplicate = f.cfg.SecondTrigger == SecondDuplicate
			if i := f.open[mapped][0]; !slices.Contains(i.Keys, rec.IncidentKey) {
				i.Keys = append(i.Keys, rec.IncidentKey)
			}
		default:
			a.Triggered.Created = true
			f.openIncident(t, mapped, rec, body, doc)
		}
	}
	switch {
	case a.Triggered.Created:
		return http.StatusCreated, "created"
	case a.Resolved.Resolved:
		return http.StatusOK, "resolved"
	case a.Triggered.Duplicate || a.Resolved.Duplicate:
		return f.cfg.DuplicateStatus, "duplicate"
	}
	return status, effect
}

// repeated says whether the same bytes were seen inside the window, and remembers them.
func (f *Fake) repeated(part string, body []byte) bool {
	sum := sha256.Sum256(body)
	key := part + string(sum[:])
	now := time.Now()
	for len(f.seenOrder) > 0 && now.Sub(f.seenOrder[0].at) >= f.cfg.DuplicateWindow {
		delete(f.seen, f.seenOrder[0].key)
		f.seenOrder = f.seenOrder[1:]
	}
	if f.cfg.DuplicateWindow == 0 || f.seen[key] {
		return f.seen[key]
	}
	f.seen[key] = true
	f.seenOrder = append(f.seenOrder, sighting{key, now})
	return false
}

func (f *Fake) openIncident(t filters.Trigger, mapped string, rec *Request, body []byte, doc any) {
	f.incidentN++
	i := &Incident{
		ID: fmt.Sprintf("incident-%06d", f.incidentN), Mapped: mapped, Keys: []string{rec.IncidentKey}, Title: t.Title(doc, rec.From), Description: cmp.Or(t.DescriptionFrom.Value(doc), string(body)),
		Urgency: t.Urgency, OpenedAt: time.Now(), OpenedBy: rec.CallID, OpenedEvent: rec.EventID,
	}
	f.stats.Open++
	if mapped != "" {
		f.open[mapped] = append(f.open[mapped], i)
	}
	f.incidents = append(f.incidents, i)
	if closed := len(f.incidents) - f.stats.Open; closed >= 2*kept && !f.cfg.KeepBodies {
		f.incidents = slices.DeleteFunc(f.incidents, func(i *Incident) bool {
			drop := i.ClosedBy != "" && closed > kept
			if drop {
				closed--
			}
			return drop
		})
	}
}

func (f *Fake) closeIncident(i *Incident, rec *Request) {
	i.ClosedAt, i.ClosedBy, i.ClosedEvent = time.Now(), rec.CallID, rec.EventID
	f.stats.Open--
	f.open[i.Mapped] = slices.DeleteFunc(f.open[i.Mapped], func(o *Incident) bool { return o == i })
	if len(f.open[i.Mapped]) == 0 {
		delete(f.open, i.Mapped)
	}
}
