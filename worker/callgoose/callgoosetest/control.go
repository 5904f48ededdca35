package callgoosetest

import (
	"encoding/json"
	"errors"
	"fmt"
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
	case "GET open":
		result = f.OpenByKey()
	case "GET events":
		result = f.Events()
	case "GET stats":
		result = f.Stats()
	case "POST check":
		var want []Expect
		if err = json.NewDecoder(r.Body).Decode(&want); err == nil {
			report := f.Check(want)
			result = struct {
				OK   bool   `json:"ok"`
				Text string `json:"text"`
				Report
			}{report.OK(), report.String(), report}
		}
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
		Mode        string `json:"mode"`
		Status      int    `json:"status"`
		RetryAfter  any    `json:"retry_after"` // number of seconds, or the header as it is
		ContentType string `json:"content_type"`
		Body        string `json:"body"`
		Delay       string `json:"delay"`
		Count       int    `json:"count"`
		Next        bool   `json:"next"` // queue Count (at least 1) of it: FailNext
		Key         string `json:"key"`  // only what matches: FailMatching
		Text        string `json:"text"`
	}
	d := json.NewDecoder(r.Body)
	d.UseNumber()
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return err
	}
	failure, err := ParseFailure(c.Mode)
	if err != nil {
		return err
	}
	if c.Status != 0 {
		if failure.Mode != Status || c.Status < 200 || c.Status > 599 {
			return errors.New("status: want 200 to 599, with mode status")
		}
		failure.Status = c.Status
	}
	if c.RetryAfter != nil {
		failure.RetryAfter = fmt.Sprint(c.RetryAfter)
	}
	if c.Delay != "" {
		if failure.Delay, err = time.ParseDuration(c.Delay); err != nil {
			return err
		}
	}
	if c.ContentType != "" || c.Body != "" {
		if failure.Mode != Status {
			return errors.New("content_type and body: want mode status")
		}
		failure.ContentType, failure.Body = c.ContentType, c.Body
	}
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
