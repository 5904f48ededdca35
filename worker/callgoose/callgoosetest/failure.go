package callgoosetest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
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
	RetryAfter string        // the header as it is: seconds or an HTTP date
	Delay      time.Duration // before the answer or the cut, in every mode but Hang
	Count      int           // for Fail: this many requests, then Off. 0 = until changed
	// Hook may answer itself; nil means that the request is processed as usual.
	Hook func(r *http.Request, body []byte) *Response
}

// Response is an answer made up by a test.
type Response struct {
	Status int // 0 = 200
	Header http.Header
	Body   []byte
}

// ParseFailure reads a mode as a command line or a control request names it; a
// number is short for that status.
func ParseFailure(mode string) (Failure, error) {
	if code, err := strconv.Atoi(mode); err == nil && code >= 200 && code <= 599 {
		return Failure{Mode: Status, Status: code}, nil
	}
	switch m := Mode(mode); m {
	case "":
		return Failure{Mode: Off}, nil
	case Status:
		return Failure{Mode: Status, Status: http.StatusServiceUnavailable}, nil
	case Off, Hang, Reset, Slow, LoseReply:
		return Failure{Mode: m}, nil
	}
	return Failure{}, fmt.Errorf("failure mode %q: want off, hang, reset, slow, lose-reply or a status code", mode)
}

// Fail sets the failure of all following requests (or of Count), dropping what
// FailNext queued. Requests that hang are released and treated accordingly.
func (f *Fake) Fail(failure Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.standing, f.script = failure, nil
	if failure.Count > 0 {
		f.standing, f.script = Failure{}, []Failure{failure}
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// FailNext queues failure for the next n requests that nothing is queued for yet;
// after them the failure set by Fail applies again.
func (f *Fake) FailNext(n int, failure Failure) {
	if failure.Count = n; n > 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.script = append(f.script, failure)
	}
}

// nextFailure hands out the failure of one request, having waited while it is Hang.
// It is false when the client left meanwhile.
func (f *Fake) nextFailure(ctx context.Context) (Failure, bool) {
	for {
		f.mu.Lock()
		failure, changed := f.standing, f.changed
		if len(f.script) > 0 {
			failure = f.script[0]
			if f.script[0].Count--; f.script[0].Count == 0 {
				f.script = f.script[1:]
			}
		}
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
		return reply(failure.Status, h, map[string]string{"error": "as told"})
	}
	return nil
}

// wait is false when the client left first.
func wait(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
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
