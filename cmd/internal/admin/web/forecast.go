package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/worker/callgoose/filters"
)

// Forecaster is a Source that can say what Callgoose would do under other filters.
type Forecaster interface {
	Forecast(ctx context.Context, set []filters.Filter, since time.Time) (filters.Report, error)
}

func (h handler) forecast(w http.ResponseWriter, r *http.Request) {
	f, ok := h.Source.(Forecaster)
	if !ok {
		fail(w, http.StatusNotFound, errors.New("this service makes no forecast"))
		return
	}
	since, err := admin.ParseTime(r.URL.Query().Get("since"), time.Now())
	var set []filters.Filter
	if err == nil {
		var text []byte
		if text, err = io.ReadAll(http.MaxBytesReader(w, r.Body, filters.MaxFile)); err == nil {
			set, err = filters.Parse(text)
		}
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	unhurried(w)
	report, err := f.Forecast(r.Context(), set, since)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	reply(w, http.StatusOK, report)
}
