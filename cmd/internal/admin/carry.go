package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"pmm-callgoose/store/event"
)

// Carried is one line of an export. Lines of kind notification can be imported
// by another pmm-callgoose: it splits them as if PMM had sent them, and the
// events that come of them have the same ids. Lines of kind event are for
// reading and for other tools.
type Carried struct {
	Kind string `json:"kind"` // notification, event

	ID         string    `json:"id"`
	Source     string    `json:"source"`
	BeganAt    time.Time `json:"began_at,omitzero"` // when its request began
	ReceivedAt time.Time `json:"received_at"`
	Body       []byte    `json:"body"` // base64 in JSON: exactly the bytes PMM sent, or Callgoose gets

	Record *event.Record `json:"record,omitempty"` // of an event
}

// The kinds of Carried.
const (
	KindNotification = "notification"
	KindEvent        = "event"
)

// Imported says what became of an import.
type Imported struct {
	Notifications int    `json:"notifications"`
	Alerts        int    `json:"alerts"`
	Skipped       int    `json:"skipped"` // lines that are no notifications
	Error         string `json:"error,omitempty"`
}

// Carrier takes stored data out, and in.
type Carrier interface {
	// Export takes the first so many chosen events, 0 = all.
	Export(ctx context.Context, kind string, f event.Filter, limit int, line func(Carried) error) error
	// Import stores one notification durably, like the intake does.
	Import(ctx context.Context, c Carried) (alerts int, err error)
}

func (h handler) export(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	kind := q.Get("kind")
	q.Del("kind")
	f, limit, err := parseChoice(q)
	if err == nil && kind != KindNotification && kind != KindEvent {
		err = fmt.Errorf("kind %q is neither %s nor %s", kind, KindNotification, KindEvent)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	unhurried(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	if err := h.Carrier.Export(r.Context(), kind, f, limit, func(c Carried) error { return enc.Encode(c) }); err != nil {
		// The head is out: a broken end is the only way to say so.
		panic(http.ErrAbortHandler)
	}
	_ = out.Flush()
}

// maxLine bounds one line of an import: the largest body in base64, and its frame.
const maxLine = 128 << 20

func (h handler) doImport(w http.ResponseWriter, r *http.Request) {
	unhurried(w)
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	var done Imported
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var c Carried
		err := json.Unmarshal(line, &c)
		switch {
		case err != nil:
		case c.Kind == KindEvent:
			done.Skipped++
			continue
		case c.Kind != KindNotification:
			err = fmt.Errorf("kind %q is unknown", c.Kind)
		}
		alerts := 0
		if err == nil {
			alerts, err = h.Carrier.Import(r.Context(), c)
		}
		if err != nil {
			done.Error = fmt.Sprintf("line %d: %s; the lines before it are stored", n, printable(err.Error()))
			reply(w, http.StatusOK, done)
			return
		}
		done.Notifications++
		done.Alerts += alerts
	}
	if err := lines.Err(); err != nil {
		done.Error = err.Error()
	}
	reply(w, http.StatusOK, done)
}

// printable is an error that may quote a line of the file, for a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// Export writes an export to w, line by line.
func (c *Client) Export(ctx context.Context, q url.Values, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/api/v1/export", q, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return errors.New("the export broke off: it is not complete")
	}
	return nil
}

// Import sends the lines of an export.
func (c *Client) Import(ctx context.Context, lines io.Reader) (done Imported, err error) {
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/import", nil, lines)
	if err != nil {
		return done, err
	}
	defer func() { _ = resp.Body.Close() }()
	return done, json.NewDecoder(resp.Body).Decode(&done)
}
