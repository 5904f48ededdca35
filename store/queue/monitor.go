package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Monitored is what the monitoring URL of a server says.
type Monitored struct {
	URL        string
	Err        error  // it does not answer
	Name       string // of the server
	SyncAlways bool
}

// monitored asks each monitoring URL.
func monitored(ctx context.Context, urls []string) (list []Monitored) {
	for _, url := range urls {
		m := Monitored{URL: url}
		m.Name, m.SyncAlways, m.Err = varz(ctx, url)
		list = append(list, m)
	}
	return list
}

// varz reads /varz. The interval stands there beside sync_always and keeps its
// default, so it says nothing.
func varz(ctx context.Context, url string) (name string, always bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/varz", http.NoBody)
	if err != nil {
		return "", false, err
	}
	resp, err := (&http.Client{Timeout: 2 * time.Second}).Do(req)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", false, fmt.Errorf("answers %s", resp.Status)
	}
	var said struct {
		Name      string `json:"server_name"`
		JetStream struct {
			Config struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	err = json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(&said)
	return said.Name, said.JetStream.Config.SyncAlways, err
}
