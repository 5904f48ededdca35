package callgoosetest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mode is a way to fail.
type Mode string

// The modes. Only Slow and LoseReply (and a Hook that returns nil) process the request.
const (
	Off       Mode = "off"        // answer as Callgoose would
	Status    Mode = "status"     // answer Failure.Status, with Failure.RetryAfter
	Hang      Mode = "hang"       // no answer until the client leaves or Fail or Reset is called, which then decides
	Reset     Mode = "reset"      // TCP reset
	Slow      Mode = "slow"       // process at once, answer after Failure.Delay
	LoseReply Mode = "lose-reply" // process, then close the connection without an answer
	Hook      Mode = "hook"       // answer what Failure.Hook says
)

// Failure is what happens to requests instead of, or on top of, an answer.
type Failure struct {
	Mode       Mode // "" = Off
	Status     int
	RetryAfter string // the header as it is: seconds or an HTTP date
	// ContentType and Body are of the answer in mode Status. "" = JSON that says error.
	ContentType, Body string
	Delay             time.Duration // before the answer or the cut, in every mode but Hang
	Count             int           // this many requests; 0 = until changed
	// Hook may answer itself; nil means that the request is processed as usual.
	Hook func(r *http.Request, body []byte) *Response
}

// Response is an answer made up by a test.
type Response struct {
	Status int // 0 = 200
	Header http.Header
	Body   []byte
}

// Match chooses requests. An empty field chooses all.
type Match struct {
	Key  string // is the incident key
	Text string // stands in the body
}

func (m Match) holds(key string, body []byte) bool {
	return (m.Key == "" || m.Key == key) && bytes.Contains(body, []byte(m.Text))
}

type rule struct {
	match   Match
	failure Failure
}

// strangers are answers that Callgoose would not give: type and body. %d is the status.
var strangers = map[string][2]string{
	"html":  {"text/html", "<html>\r\n<head><title>%[1]d</title></head>\r\n<body>\r\n<center><h1>%[1]d</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"},
	"text":  {"text/plain", "status %d"},
	"error": {"application/json", `{"status":"error","code":%d}`},
}

// ParseFailure reads a mode as a command line or a control request names it. A
// number is short for that status, and 400-html, 200-text, 200-error for one that
// nginx' page, plain text or {"status":"error"} comes with.
func ParseFailure(mode string) (Failure, error) {
	number, kind, stranger := strings.Cut(mode, "-")
	if code, err := strconv.Atoi(number); err == nil && code >= 200 && code <= 599 {
		failure := Failure{Mode: Status, Status: code}
		if answer, ok := strangers[kind]; ok {
			failure.ContentType, failure.Body = answer[0], fmt.Sprintf(answer[1], code)
		}
		if !stranger || failure.Body != "" {
			return failure, nil
		}
	}
	switch m := Mode(mode); m {
	case "":
		return Failure{Mode: Off}, nil
	case Status:
		return Failure{Mode: Status, Status: http.StatusServiceUnavailable}, nil
	case Off, Hang, Reset, Slow, LoseReply:
		return Failure{Mode: m}, nil
	}
	return Failure{}, fmt.Errorf("failure mode %q: want off, hang, reset, slow, lose-reply, or a status code alone or with -html, -text or -error", mode)
}

// Fail sets the failure of all following requests (or of Count), dropping what
// FailNext queued. Requests that hang are released and treated accordingly.
func (f *Fake) Fail(failure Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.standing, f.script = failure, nil
	if failure.Count > 0 {
		f.standing, f.script = Failure{}, []rule{{failure: failure}}
	}
	f.release()
}

// FailNext queues failure for the next n requests that nothing is queued for yet;
// after them the failure set by Fail applies again.
func (f *Fake) FailNext(n int, failure Failure) {
	if failure.Count = n; n > 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.script = append(f.script, rule{failure: failure})
	}
}

// FailMatching sets the failure of the requests that match, whatever Fail and
// FailNext say, until Count of them or Reset. Of several matches the one set first
// counts. Mode Off lets them pass while others fail; no mode ends it.
func (f *Fake) FailMatching(match Match, failure Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = slices.DeleteFunc(f.rules, func(r rule) bool { return r.match == match })
	if failure.Mode != "" {
		f.rules = append(f.rules, rule{match, failure})
	}
	f.release()
}

// release lets requests that hang look again; f.mu is held.
func (f *Fake) release() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// nextFailure hands out the failure of one request, having waited while it is Hang.
// It is false when the client left meanwhile.
func (f *Fake) nextFailure(ctx context.Context, key string, body []byte) (Failure, bool) {
	for {
		f.mu.Lock()
		failure, changed := f.take(key, body), f.changed
		f.mu.Unlock()
		if failure.Mode != Hang {
			return failure, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return failure, false
		}
	}
}

// take uses up one of what applies to a request; f.mu is held.
func (f *Fake) take(key string, body []byte) Failure {
	for _, list := range []*[]rule{&f.rules, &f.script} {
		i := slices.IndexFunc(*list, func(r rule) bool { return r.match.holds(key, body) })
		if i < 0 {
			continue
		}
		failure := &(*list)[i].failure
		now := *failure
		if failure.Count--; failure.Count == 0 {
			*list = slices.Delete(*list, i, i+1)
		}
		return now
	}
	return f.standing
}

func (failure Failure) response(r *http.Request, body []byte) *Response {
	switch {
	case failure.Mode == Hook && failure.Hook != nil:
		return failure.Hook(r, body)
	case failure.Mode == Status:
		h := http.Header{}
		if failure.RetryAfter != "" {
			h.Set("Retry-After", failure.RetryAfter)
		}
		if failure.Status/100 == 3 {
			h.Set("Location", r.URL.Path) // who follows it comes back as a GET
		}
		if failure.ContentType == "" && failure.Body == "" {
			return reply(failure.Status, h, map[string]string{"error": "as told"})
		}
		h.Set("Content-Type", failure.ContentType)
		return &Response{Status: failure.Status, Header: h, Body: []byte(failure.Body)}
	}
	return nil
}

// wait is false when the client left first.
func wait(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// cut ends the connection without an answer.
func cut(w http.ResponseWriter, reset bool) {
	if h, ok := w.(http.Hijacker); ok {
		if conn, _, err := h.Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}
