package worker

import (
	"encoding/json"
	"fmt"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
)

// OurLabel marks an alert that did not come from PMM, and says what it was made
// for: "silence", "test". It travels the whole way like any other, but its
// notification is no sign of life of that PMM. A rule in PMM that sets this label
// makes its PMM look silent, which is noticed, and never hides a silence. Only the
// value Heartbeat is meant for rules.
const OurLabel = "pmm_callgoose"

// Heartbeat is the value of OurLabel that a rule in PMM may set: its alert says
// only that PMM lives, and never becomes an event.
const Heartbeat = "heartbeat"

// Silence is the state of a PMM server from which nothing comes. Its labels
// depend on nothing but the source, so that firing and recovery meet.
type Silence struct {
	Source string
	Since  time.Time // when the silence was declared: the alert's startsAt
	Heard  time.Time // last sign of life; zero = never heard of
	Every  time.Duration
	Until  time.Time // when it ended; zero = it lasts
	// Unwatched: it ended because nobody waits for this PMM any more.
	Unwatched bool
}

// SilenceName is the alert name, and the incident's title, of a silent PMM.
func SilenceName(source string) string { return fmt.Sprintf("PMM %s is silent", source) }

func (s Silence) labels() map[string]string {
	return map[string]string{
		"alertname": SilenceName(s.Source), "severity": "critical", "instance": s.Source, OurLabel: "silence",
	}
}

// SilenceKey is the incident key of a source's silence.
func SilenceKey(source string) string {
	return event.Key(source, pmm.Fingerprint(Silence{Source: source}.labels()))
}

// Alert is what is told of it, as PMM could have sent it.
func (s Silence) Alert() OwnAlert {
	heard := "Nothing ever came from it."
	if !s.Heard.IsZero() {
		heard = fmt.Sprintf("The last notification came at %s.", s.Heard.UTC().Format(time.RFC3339))
	}
	alert := OwnAlert{
		Status: event.Firing, Labels: s.labels(), StartsAt: s.Since,
		Annotations: map[string]string{
			"summary": fmt.Sprintf("no notification for %s", s.Every),
			"description": heard + " Alerts of the systems that it watches would not reach you either. " +
				"PMM or its Grafana may be down, unable to reach pmm-callgoose, or without its heartbeat rule.",
		},
	}
	if !s.Until.IsZero() {
		alert.Status, alert.EndsAt = event.Resolved, s.Until
		alert.Annotations = map[string]string{"summary": "it sends again", "description": "A notification came in."}
		if s.Unwatched {
			alert.Annotations = map[string]string{"summary": "no longer watched", "description": "--expect-every does not ask for this PMM any more."}
		}
	}
	return alert
}

// OwnAlert is an alert that the service makes.
type OwnAlert struct {
	Status      event.Status      `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	// Fingerprint is the alert's identity; empty = that of its labels.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// Notification says at now that the alert of a source is so.
func (a OwnAlert) Notification(source string, now time.Time) (event.Notification, error) {
	body, err := a.Body()
	return event.Notification{Source: source, Origin: event.FromService, BeganAt: now.UTC(), ReceivedAt: now.UTC(), Body: body, Alerts: 1}, err
}

// Body is a notification with this one alert, as PMM would post it.
func (a OwnAlert) Body() ([]byte, error) {
	return json.Marshal(map[string]any{
		"receiver": "pmm-callgoose", "version": "1", "status": a.Status, "alerts": []OwnAlert{a}, "truncatedAlerts": 0,
	})
}
