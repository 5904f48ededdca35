package admin

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"pmm-callgoose/store/event"
)

// Incident is one alert that is open, or the last episode of one that is not.
type Incident struct {
	Key       string            `json:"incident_key"`
	Source    string            `json:"source"`
	Alertname string            `json:"alertname"`
	Labels    map[string]string `json:"labels"`
	Open      bool              `json:"open"`
	StartsAt  *time.Time        `json:"starts_at"`     // null when PMM never said
	NamedAt   *time.Time        `json:"last_named_at"` // when PMM last said that it fires, within an hour
	// Outcome is what became of the firing event, Tries its attempts.
	Outcome event.Outcome `json:"outcome"`
	Tries   int           `json:"attempts"`
}

// Story is one incident with everything that happened, the oldest first.
type Story struct {
	Incident
	Story []Step `json:"story"`
	// Cut is true when only the newest events are in it.
	Cut bool `json:"cut"`
}

// Step is one thing that happened.
type Step struct {
	At   time.Time `json:"at"`
	What string    `json:"what"` // began, received, repeated, attempt, settled, or what an operator did
	Text string    `json:"text"`
	ID   string    `json:"event_id,omitempty"`
	By   string    `json:"by,omitempty"`
	// Level is bad for what went wrong, warn for what a person should know.
	Level Level `json:"level,omitempty"`
}

// StoryEvents bounds the events of a story.
const StoryEvents = 1000

// Tell adds what the records of an incident say to the story, in any order, and sorts it.
func (s *Story) Tell(records []*event.Record) {
	slices.SortFunc(records, func(a, b *event.Record) int { return a.Pos.Compare(b.Pos) })
	for i := 0; i < len(records); i++ {
		r := records[i]
		if r.Outcome == event.Suppressed && !r.IsEvent() {
			n := 1
			for i+1 < len(records) && records[i+1].Outcome == event.Suppressed && records[i+1].Reason == r.Reason && !records[i+1].IsEvent() {
				i, n = i+1, n+1
			}
			s.suppressed(r, records[i], n)
			continue
		}
		s.tellEvent(r)
	}
	slices.SortStableFunc(s.Story, func(a, b Step) int { return a.At.Compare(b.At) })
}

func (s *Story) suppressed(first, last *event.Record, n int) {
	what := fmt.Sprintf("PMM said %s again (%s)", first.Status, first.Reason)
	if n > 1 {
		what += fmt.Sprintf(", %d times until %s", n, last.ReceivedAt.UTC().Format("2006-01-02 15:04:05Z"))
	}
	s.Story = append(s.Story, Step{At: first.ReceivedAt, What: "repeated", Text: what, ID: first.ID})
}

func (s *Story) tellEvent(r *event.Record) {
	add := func(at time.Time, what, text string, level Level) {
		s.Story = append(s.Story, Step{At: at, What: what, Text: text, ID: r.ID, Level: level})
	}
	if r.Status == event.Firing && !r.StartsAt.IsZero() && !r.StartsAt.After(r.ReceivedAt) {
		add(r.StartsAt, "began", "the alert began, PMM says", "")
	}
	said := fmt.Sprintf("%s received from %s in %s", cmp.Or(string(r.Status), "an alert that cannot be used"), r.Source, r.Notification)
	switch {
	case r.Facts.Reopened:
		said += ": the episode goes on"
	case r.Facts.Reconciled:
		said += ": PMM's own lists say so"
	case r.Outcome == event.Suppressed:
		said += ", withheld: " + r.Reason
	}
	add(r.ReceivedAt, "received", said, "")
	for _, a := range r.Attempts {
		what, level := a.Result, Level("")
		switch {
		case a.Result == string(event.Delivered):
			what = "Callgoose took " + string(r.Status) + ": " + LastDelivered{Effect: a.Effect}.Did()
		case a.Result == string(event.Discarded):
			what, level = "Callgoose answered that no filter matched", Bad
		case a.Error != "":
			what, level = string(r.Status)+" not taken ("+a.Result+"): "+a.Error, Odd
		}
		add(a.At.Add(a.Duration), "attempt", what, level)
	}
	if more := r.Tries - len(r.Attempts); more > 0 {
		s.Story[len(s.Story)-1].Text += fmt.Sprintf(" (%d attempts between the first and the latest are not kept)", more)
	}
	switch r.Outcome {
	case event.Dead:
		add(r.SettledAt, "settled", "given up: "+cmp.Or(r.Reason, r.LastError), Bad)
	case event.Collapsed:
		why := "it fired and ended before anything could be sent"
		if r.Reason == "flap" || r.Reason == "superseded" {
			why = "the alert fired again, or a recovery that counts more came, while it waited"
		}
		add(r.SettledAt, "settled", "settled without a word to Callgoose: "+why, "")
	case event.Unknown:
		add(cmp.Or(r.SettledAt, r.ReceivedAt), "settled", "settled before the ledger was rebuilt: what became of it is not known", Odd)
	}
}
