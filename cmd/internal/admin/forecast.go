package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"pmm-callgoose/worker/callgoose/filters"
)

// Forecast asks what Callgoose would do under filters, given as the text of their
// file, with the stored events since a time (see ParseTime).
func (c *Client) Forecast(ctx context.Context, file []byte, since string) (r filters.Report, err error) {
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/filters/test", url.Values{"since": {since}}, bytes.NewReader(file))
	if err != nil {
		return r, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxEvents)).Decode(&r); err != nil {
		return r, fmt.Errorf("read the answer of %s: %w", c.where, err)
	}
	return r, nil
}
