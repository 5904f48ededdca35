package alarm

import (
	"fmt"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
)

// Notice is what people are told: the standard input of the command, and the
// body of the webhook.
type Notice struct {
	Alarm string `json:"alarm"`
	// Over is true when the alarm has ended.
	Over          bool      `json:"over"`
	Since         time.Time `json:"since"`
	LastedSeconds int64     `json:"lasted_seconds"`
	// Count is how often this alarm was told of since it began, this one included
	// unless it is over.
	Count          int             `json:"count"`
	Queued         int64           `json:"queued"`
	OldestQueuedAt *time.Time      `json:"oldest_queued_at"`
	Dead           int64           `json:"dead"`
	Discarded      int64           `json:"discarded"`
	Callgoose      admin.Callgoose `json:"callgoose"`
	// Text is one sentence for a person, or two. It holds no line break, quotation
	// mark, backslash, backtick or dollar sign, so that a script may put it between
	// quotation marks.
	Text    string    `json:"text"`
	Hint    string    `json:"hint"` // the way out, "" when it is over
	Host    string    `json:"host"`
	Version string    `json:"version"`
	At      time.Time `json:"at"`
}

func newNotice(now, until time.Time, name string, o *occasion, s admin.Status, over bool) Notice {
	n := Notice{
		Alarm: name, Over: over, Since: o.since.UTC(), LastedSeconds: int64(until.Sub(o.since) / time.Second), Count: o.count,
		Queued: s.Queued, OldestQueuedAt: s.OldestQueuedAt, Dead: s.Dead, Discarded: s.Discarded, Callgoose: s.Callgoose,
		Text: o.found.Text, At: now.UTC(),
	}
	switch lasted := text.Span(until.Sub(o.since)); {
	case over:
		n.Text = fmt.Sprintf("Over, after %s: %s Now: %s", lasted, n.Text, s.Headline)
	case n.LastedSeconds > 0:
		n.Text = fmt.Sprintf("%s (for %s).", strings.TrimSuffix(n.Text, "."), lasted)
	}
	n.Text = quotable(n.Text)
	if !over {
		n.Hint = o.found.Fix
	}
	return n
}

// unquoted are what ends a quotation, or does something in it, and what stands
// for them.
var unquoted = strings.NewReplacer(`"`, "”", "'", "’", "`", "’", `\`, "/", "$", "＄")

// quotable makes text of others fit for an environment variable, and for
// quotation marks in a script that passes it on.
func quotable(said string) string {
	const limit = 800
	said = strings.Join(strings.Fields(text.Line(unquoted.Replace(said))), " ")
	if len(said) > limit {
		said = strings.ToValidUTF8(said[:limit], "") + "…"
	}
	return said
}
