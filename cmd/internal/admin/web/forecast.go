package web

import (
	"io"
	"net/http"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/worker/callgoose/filters"
)

// forecast answers what stored events would do under the filters in the body.
func (s *site) forecast(w http.ResponseWriter, r *http.Request) {
	since, err := admin.ParseTime(r.URL.Query().Get("since"), time.Now())
	var set []filters.Filter
	if err == nil {
		var text []byte
		if text, err = io.ReadAll(http.MaxBytesReader(w, r.Body, filters.MaxFile)); err == nil {
			set, err = filters.Parse(text)
		}
	}
	if err != nil {
		answer(w, nil, wrong{error: err})
		return
	}
	unhurried(w)
	report, err := s.Source.Forecast(r.Context(), set, since)
	answer(w, report, err)
}
