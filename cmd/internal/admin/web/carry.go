package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

// Carrier takes stored data out, and in.
type Carrier interface {
	// Export takes the first so many chosen events, 0 = all.
	Export(ctx context.Context, kind string, f event.Filter, limit int, line func(admin.Carried) error) error
	// Import stores one notification durably, like the intake does.
	Import(ctx context.Context, c admin.Carried) (alerts int, err error)
}

func (s *site) export(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	kind := q.Get("kind")
	q.Del("kind")
	f, limit, err := admin.ParseChoice(q)
	if err == nil && kind != admin.KindNotification && kind != admin.KindEvent {
		err = fmt.Errorf("kind %q is neither %s nor %s", kind, admin.KindNotification, admin.KindEvent)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriter(moving(w))
	enc := encoder(out)
	if s.exports.Add(1); s.exportLog.Allow() { // without a token everybody on this machine may
		s.did(r, "export", int(s.exports.Swap(0)))
	}
	if err := s.Carrier.Export(r.Context(), kind, f, limit, func(c admin.Carried) error { return enc.Encode(c) }); err != nil {
		// The head is out: a broken end is the only way to say so.
		panic(http.ErrAbortHandler)
	}
	_ = out.Flush()
}

func (s *site) doImport(w http.ResponseWriter, r *http.Request) {
	in := moving(w)
	in.r = r.Body
	lines := bufio.NewScanner(in)
	// A line is a body in base64, a third longer, and what stands around it.
	lines.Buffer(make([]byte, 0, 64<<10), int(2*s.MaxBody)+64<<10)
	var done admin.Imported
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var c admin.Carried
		err := json.Unmarshal(line, &c)
		switch {
		case err != nil:
		case c.Kind == admin.KindEvent:
			done.Skipped++
			continue
		case c.Kind != admin.KindNotification:
			err = fmt.Errorf("kind %q is unknown", c.Kind)
		}
		alerts := 0
		if err == nil {
			alerts, err = s.Carrier.Import(r.Context(), c)
		}
		if err != nil {
			done.Error = fmt.Sprintf("line %d: %s; the lines before it are stored", n, text.Line(err.Error()))
			reply(w, http.StatusOK, done)
			return
		}
		done.Notifications++
		done.Alerts += alerts
	}
	if err := lines.Err(); err != nil {
		done.Error = text.Line(err.Error())
	}
	s.did(r, "import", done.Notifications)
	reply(w, http.StatusOK, done)
}
