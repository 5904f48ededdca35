package pmmtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Config says which PMM is played. The zero value is PMM 3.8 with Grafana 12.4.1
// and the token [Token].
type Config struct {
	PMM     string // "" = 3.8.0
	Grafana string // "" = 12.4.1
	// Token is accepted as bearer token and as password of the user service_token;
	// "" = Token. Its role is Admin. Editor, Viewer and None are tokens of those roles.
	// Basic is user:password of an administrator.
	Token, Editor, Viewer, None, Basic string
	// HideGrafana: Grafana's health does not tell its version.
	HideGrafana bool
}

// Token is what the zero Config accepts.
const Token = "glsa_f4ke-t0ken-of-pmmtest"

const redacted = "[REDACTED]"

// Fake is a fake PMM. Safe concurrently.
type Fake struct {
	cfg Config
	// World is its rules and alerts.
	World *World

	mu     sync.Mutex
	points []*point
	tree   *route
	writes []string
	page   int // status that nginx answers everything with, 0 = none
	before func(w http.ResponseWriter, r *http.Request) bool
	made   int
}

// point is a contact point as it is read and shown.
type point struct {
	UID        string            `json:"uid"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	NoResolved bool              `json:"disableResolveMessage"`
	Settings   map[string]any    `json:"settings"`
	Provenance string            `json:"provenance,omitempty"`
	Secrets    map[string]string `json:"-"` // by path, such as "hmacConfig.secret"
}

// New makes a fake as a fresh PMM is: one contact point for e-mail that gets
// everything.
func New(cfg Config) *Fake {
	cfg.PMM, cfg.Grafana, cfg.Token = cmp.Or(cfg.PMM, "3.8.0"), cmp.Or(cfg.Grafana, "12.4.1"), cmp.Or(cfg.Token, Token)
	f := &Fake{cfg: cfg}
	f.World = newWorld(f)
	f.AddPoint(`{"uid":"","name":"grafana-default-email","type":"email","settings":{"addresses":"<example@email.com>"}}`)
	f.SetTree(`{"receiver":"grafana-default-email","group_by":["grafana_folder","alertname"]}`)
	return f
}

// AddPoint adds a contact point as given, whatever rule it breaks.
func (f *Fake) AddPoint(text string) {
	p := &point{}
	must(json.Unmarshal([]byte(text), p))
	f.mu.Lock()
	defer f.mu.Unlock()
	p.Secrets = f.takeSecrets(p.Settings)
	f.points = append(f.points, p)
}

// SetTree replaces the policies as they are given; "provenance" locks them.
func (f *Fake) SetTree(text string) {
	t, err := readTree([]byte(text))
	must(err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tree = t
}

// Tree is what GET answers.
func (f *Fake) Tree() string {
	b, err := json.Marshal(f.policies())
	must(err)
	return string(b)
}

// Points is what GET answers.
func (f *Fake) Points() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := json.Marshal(f.shownPoints())
	must(err)
	return string(b)
}

// Secret is what is stored and not shown: key is a path such as "hmacConfig.secret".
func (f *Fake) Secret(uid, key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.points {
		if p.UID == uid {
			return p.Secrets[key]
		}
	}
	return ""
}

// Writes lists the requests that changed something, as "PUT /graph/…".
func (f *Fake) Writes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.writes)
}

// Page makes nginx answer everything with an error page, until Page(0).
func (f *Fake) Page(status int) { f.mu.Lock(); f.page = status; f.mu.Unlock() }

// Before sets what is called before every request. It may change the fake, and answer in
// its place: then it reports true.
func (f *Fake) Before(hook func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = hook
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// since reports whether Grafana is of that version or later.
func (f *Fake) since(major, minor int) bool {
	parts := strings.SplitN(f.cfg.Grafana, ".", 3)
	a, _ := strconv.Atoi(parts[0])
	b, _ := strconv.Atoi(parts[1])
	return a > major || a == major && b >= minor
}

const provisioning = "/graph/api/v1/provisioning/"

// ServeHTTP answers as nginx, pmm-managed and Grafana together.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	hook := f.before
	f.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.page != 0 {
		page(w, f.page)
		return
	}
	switch {
	case r.URL.Path == "/v1/server/version" || r.URL.Path == "/v1/version":
		f.version(w, r)
	case r.URL.Path == "/graph/api/health":
		health := map[string]any{"database": "ok", "commit": "f4ke", "version": f.cfg.Grafana}
		if f.cfg.HideGrafana {
			health = map[string]any{"database": "ok"}
		}
		answer(w, http.StatusOK, health)
	case f.alerting(w, r):
	case strings.HasPrefix(r.URL.Path, provisioning):
		f.provision(w, r, strings.TrimPrefix(r.URL.Path, provisioning))
	default:
		page(w, http.StatusNotFound)
	}
}

func page(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	text := fmt.Sprintf("%d %s", status, http.StatusText(status))
	_, _ = fmt.Fprintf(w, "<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n", text, text)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// public is how newer Grafanas write an error (errutil.PublicError).
func public(w http.ResponseWriter, status int, id, text string) {
	answer(w, status, map[string]any{"statusCode": status, "messageId": id, "message": text})
}

func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, map[string]any{"message": fmt.Sprintf(format, args...), "traceID": ""})
}

// who is the role of the caller, "" for an unknown one.
func (f *Fake) who(r *http.Request) string {
	token, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	user, password, isBasic := r.BasicAuth()
	switch {
	case isBearer && token == f.cfg.Token, isBasic && user == "service_token" && password == f.cfg.Token,
		isBasic && f.cfg.Basic != "" && user+":"+password == f.cfg.Basic:
		return "admin"
	case !isBearer || token == "":
	case token == f.cfg.Editor:
		return "editor"
	case token == f.cfg.Viewer:
		return "viewer"
	case token == f.cfg.None:
		return "none"
	}
	return ""
}

func (f *Fake) version(w http.ResponseWriter, r *http.Request) {
	managed := func(status, code int, text string) {
		answer(w, status, map[string]any{"code": code, "error": text, "message": text})
	}
	who := f.who(r)
	_, _, isBasic := r.BasicAuth()
	switch {
	case who == "" && isBasic:
		managed(http.StatusUnauthorized, 16, "Invalid username or password")
	case who == "":
		managed(http.StatusUnauthorized, 16, "Invalid API key")
	case strings.HasPrefix(f.cfg.PMM, "2.") && r.URL.Path == "/v1/server/version" && isBasic: // Grafana's own administrator
		managed(http.StatusNotFound, 5, "Not Found")
	case strings.HasPrefix(f.cfg.PMM, "2.") && r.URL.Path == "/v1/server/version":
		managed(http.StatusUnauthorized, 7, "Access denied.")
	default:
		info := map[string]any{"version": f.cfg.PMM, "full_version": f.cfg.PMM + "-1.el9", "timestamp": "2026-08-30T00:00:00Z"}
		answer(w, http.StatusOK, map[string]any{"version": f.cfg.PMM, "server": info, "managed": info, "distribution_method": "DISTRIBUTION_METHOD_DOCKER"})
	}
}

func (f *Fake) provision(w http.ResponseWriter, r *http.Request, path string) {
	role, permissions := "admin", "alert.provisioning:read, alert.provisioning.secrets:read"
	switch {
	case !f.since(11, 0):
	case r.Method == http.MethodGet:
		role = "viewer"
	default:
		role, permissions = "editor", "alert.provisioning:write, alert.notifications.provisioning:write, alert.notifications:write, alert.provisioning.provenance:write"
	}
	if !f.may(w, r, role, permissions) {
		return
	}
	if f.since(13, 0) {
		w.Header().Set("X-API-Deprecation-Date", "2026-05-12")
		w.Header().Set("Warning", `299 - "This API is deprecated"`)
	}
	body, _ := io.ReadAll(r.Body)
	provenance := "api"
	if r.Header.Get("X-Disable-Provenance") != "" {
		provenance = ""
	}
	kind, uid, _ := strings.Cut(path, "/")
	before := len(f.writes)
	f.writes = append(f.writes, r.Method+" "+r.URL.Path)
	ok := false
	switch {
	case kind == "contact-points" && uid == "" && r.Method == http.MethodGet:
		answer(w, http.StatusOK, f.shownPoints())
	case kind == "contact-points" && uid == "" && r.Method == http.MethodPost:
		ok = f.post(w, body, provenance)
	case kind == "contact-points" && uid != "" && r.Method == http.MethodPut:
		ok = f.put(w, body, uid, provenance)
	case kind == "contact-points" && uid != "" && r.Method == http.MethodDelete:
		ok = f.remove(w, uid)
	case path == "alert-rules" && r.Method == http.MethodGet:
		answer(w, http.StatusOK, f.World.alertRules())
	case path == "policies" && r.Method == http.MethodGet:
		answer(w, http.StatusOK, f.tree)
	case path == "policies" && r.Method == http.MethodPut:
		ok = f.putTree(w, body, provenance)
	default:
		refuse(w, http.StatusNotFound, "Not found")
	}
	if !ok {
		f.writes = f.writes[:before]
	}
}

// secretPaths are the secrets of a webhook that this Grafana knows.
func (f *Fake) secretPaths() []string {
	paths := []string{"password", "authorization_credentials"}
	if f.since(11, 6) {
		paths = append(paths, "tlsConfig.caCertificate", "tlsConfig.clientCertificate", "tlsConfig.clientKey", "hmacConfig.secret")
	}
	return paths
}

// takeSecrets moves secrets out of the settings.
func (f *Fake) takeSecrets(settings map[string]any) map[string]string {
	out := map[string]string{}
	for _, path := range f.secretPaths() {
		in, key := nested(settings, path)
		if v, ok := in[key].(string); ok {
			delete(in, key)
			if v != "" {
				out[path] = v
			}
		}
	}
	return out
}

// nested finds where a path such as "hmacConfig.secret" leads.
func nested(settings map[string]any, path string) (in map[string]any, key string) {
	group, key, ok := strings.Cut(path, ".")
	if !ok {
		return settings, path
	}
	in, _ = settings[group].(map[string]any)
	return in, key
}

func (f *Fake) shownPoints() []point {
	list := []point{}
	for _, p := range f.points {
		shown := *p
		shown.Settings = map[string]any{}
		b, err := json.Marshal(p.Settings)
		must(err)
		must(json.Unmarshal(b, &shown.Settings))
		for path := range p.Secrets {
			in, key := nested(shown.Settings, path)
			in[key] = redacted
		}
		list = append(list, shown)
	}
	slices.SortStableFunc(list, func(a, b point) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// decode reads a contact point and judges it.
func (f *Fake) decode(w http.ResponseWriter, body []byte, old *point) (*point, bool) {
	p := &point{}
	if err := json.Unmarshal(body, p); err != nil {
		refuse(w, http.StatusBadRequest, "bad request data")
		return nil, false
	}
	invalid := func(text string) (*point, bool) {
		refuse(w, http.StatusBadRequest, "invalid object specification: %s", text)
		return nil, false
	}
	s := p.Settings
	text := func(key string) string { v, _ := s[key].(string); return v }
	if old != nil {
		for _, key := range []string{"password", "authorization_credentials"} {
			if text(key) == redacted {
				s[key] = old.Secrets[key]
			}
		}
	}
	switch {
	case p.Name == "" || p.Type == "":
		return invalid("contact point should have a name and a type")
	case s == nil:
		return invalid("settings should not be empty")
	case p.Type == "webhook" && text("url") == "":
		return invalid("required field 'url' is not specified")
	case text("username") != "" && text("password") != "" && text("authorization_credentials") != "":
		return invalid("both HTTP Basic Authentication and Authorization Header are set, only 1 is permitted")
	}
	switch v := s["maxAlerts"].(type) { // json.Number: a number, or a text with one
	case nil, float64:
	case string:
		if _, err := strconv.ParseFloat(v, 64); err != nil && v != "" {
			return invalid("failed to unmarshal settings: json: invalid number literal")
		}
	default:
		return invalid("failed to unmarshal settings")
	}
	p.Secrets = f.takeSecrets(s)
	return p, true
}

func (f *Fake) post(w http.ResponseWriter, body []byte, provenance string) bool {
	p, ok := f.decode(w, body, nil)
	if !ok {
		return false
	}
	if p.UID != "" && slices.ContainsFunc(f.points, func(other *point) bool { return other.UID == p.UID }) {
		public(w, http.StatusConflict, "alerting.notifications.contact-points.uidInUse", fmt.Sprintf("Receiver configuration with UID '%s' already exists.", p.UID))
		return false
	}
	if p.UID == "" {
		f.made++
		p.UID = fmt.Sprintf("f4ke%09d", f.made)
	}
	p.Provenance = provenance
	f.points = append(f.points, p)
	// The secrets come back flat here, "hmacConfig.secret" beside "hmacConfig".
	shown := *p
	shown.Settings = maps.Clone(p.Settings)
	for path := range p.Secrets {
		shown.Settings[path] = redacted
	}
	answer(w, http.StatusAccepted, shown)
	return true
}

// locked refuses to take a lock off.
func (f *Fake) locked(w http.ResponseWriter, from, to string) bool {
	if from == to || from == "" {
		return false
	}
	public(w, http.StatusForbidden, "alerting.notifications.invalidProvenance",
		fmt.Sprintf("Resource with provenance status '%s' cannot be changed to '%s'. You must use appropriate API and permissions to manage this resource", from, cmp.Or(to, "none")))
	return true
}

func (f *Fake) put(w http.ResponseWriter, body []byte, uid, provenance string) bool {
	at := slices.IndexFunc(f.points, func(p *point) bool { return p.UID == uid })
	if at < 0 {
		refuse(w, http.StatusNotFound, "not found: contact point with uid '%s' not found", uid)
		return false
	}
	old := f.points[at]
	p, ok := f.decode(w, body, old)
	if !ok || f.locked(w, old.Provenance, provenance) {
		return false
	}
	p.UID, p.Provenance = uid, provenance
	f.points[at] = p
	answer(w, http.StatusAccepted, map[string]any{"message": "contactpoint updated"})
	return true
}

func (f *Fake) remove(w http.ResponseWriter, uid string) bool {
	at := slices.IndexFunc(f.points, func(p *point) bool { return p.UID == uid })
	if at >= 0 {
		name := f.points[at].Name
		for _, r := range f.World.rules {
			if r.Receiver == name {
				public(w, http.StatusConflict, "alerting.notifications.contact-points.usedByRule", "Contact point is currently used in the notification settings of one or many alert rules.")
				return false
			}
		}
		alone := !slices.ContainsFunc(f.points, func(p *point) bool { return p.Name == name && p.UID != uid })
		if alone && f.tree.each(func(r *route) string { return map[string]string{name: "used"}[r.Receiver] }) != "" {
			public(w, http.StatusConflict, "alerting.notifications.contact-points.referenced", "Contact point is currently referenced by a notification policy.")
			return false
		}
		f.points = slices.Delete(f.points, at, at+1)
	}
	answer(w, http.StatusAccepted, map[string]any{"message": "contactpoint deleted"})
	return true
}

func (f *Fake) putTree(w http.ResponseWriter, body []byte, provenance string) bool {
	t, err := readTree(body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "bad request data")
		return false
	}
	if problem := f.invalidTree(t); problem != "" {
		refuse(w, http.StatusBadRequest, "invalid object specification: %s", problem)
		return false
	}
	if f.since(12, 0) && f.locked(w, f.tree.Provenance, provenance) {
		return false
	}
	t.Provenance = provenance // not that of the body
	f.tree = t
	answer(w, http.StatusAccepted, map[string]any{"message": "policies updated"})
	return true
}

func (f *Fake) invalidTree(root *route) string {
	switch {
	case root.Receiver == "":
		return "root route must specify a default receiver"
	case len(root.Match)+len(root.MatchRE)+len(root.ObjectMatchers)+len(root.Matchers) > 0:
		return "root route must not have any matchers"
	case root.Continue:
		return "cannot have continue in root route"
	}
	names := map[string]bool{"": true, "empty": true}
	for _, p := range f.points {
		names[p.Name] = true
	}
	return root.each(func(r *route) string {
		switch {
		case !names[r.Receiver]:
			return fmt.Sprintf("receiver '%v' does not exist", r.Receiver)
		case r.GroupInterval == "0s":
			return "group_interval cannot be zero"
		case r.RepeatInterval == "0s":
			return "repeat_interval cannot be zero"
		case len(r.GroupBy) > 1 && slices.Contains(r.GroupBy, "..."):
			return "cannot have wildcard group_by (`...`) and other other labels at the same time"
		}
		return ""
	})
}

// RoundTrip answers without a network.
func (f *Fake) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Result(), nil
}
