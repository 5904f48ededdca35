package callgoosetest

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// control serves the paths below /_fake/.
func (f *Fake) control(w http.ResponseWriter, r *http.Request) {
	var result any = struct{}{}
	var err error
	switch path := strings.TrimPrefix(r.URL.Path, "/_fake/"); r.Method + " " + path {
	case "GET received":
		result = f.Received()
	case "GET incidents":
		if result = f.Incidents(); r.URL.Query().Get("open") == "1" {
			result = f.Open()
		}
	case "GET stats":
		result = f.Stats()
	case "POST fail":
		err = f.remoteFail(r)
	case "POST reset":
		f.Reset()
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		result = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(result)
}

func (f *Fake) remoteFail(r *http.Request) error {
	var c struct {
		Mode       string `json:"mode"`
		RetryAfter string `json:"retry_after"`
		Delay      string `json:"delay"`
		Count      int    `json:"count"`
		Next       bool   `json:"next"` // queue Count (at least 1) of it: FailNext
		Key        string `json:"key"`  // only what matches: FailMatching
		Text       string `json:"text"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return err
	}
	failure, err := ParseFailure(c.Mode)
	if err != nil {
		return err
	}
	if c.Delay != "" {
		if failure.Delay, err = time.ParseDuration(c.Delay); err != nil {
			return err
		}
	}
	failure.RetryAfter = c.RetryAfter
	switch failure.Count = c.Count; {
	case c.Key != "" || c.Text != "":
		if c.Mode == "" {
			failure.Mode = "" // ends it
		}
		f.FailMatching(Match{c.Key, c.Text}, failure)
	case c.Next:
		f.FailNext(max(1, c.Count), failure)
	default:
		f.Fail(failure)
	}
	return nil
}
