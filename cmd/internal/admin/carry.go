package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"pmm-callgoose/cmd/internal/text"
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
	err = c.call(ctx, http.MethodPost, "/api/v1/import", nil, lines, &done)
	done.Error = text.Short(1000, done.Error)
	return done, err
}
