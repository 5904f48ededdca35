package alarm

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
)

// The alarms.
const (
	Unreachable = "callgoose_unreachable"
	Held        = "callgoose_held"
	DeadLetters = "dead_letters"
	StoreFull   = "store_full"
	Discarded   = "discarded"
	Paused      = "paused"
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
	Count          int        `json:"count"`
	Queued         int64      `json:"queued"`
	OldestQueuedAt *time.Time `json:"oldest_queued_at"`
	Dead           int64      `json:"dead"`
	// NewDead is how many dead letters came since the notice before.
	NewDead int64 `json:"new_dead"`
	// Discarded is how many events are kept for which no filter of Callgoose matched,
	// NewDiscarded how many firing ones came since the notice before.
	Discarded    int64     `json:"discarded"`
	NewDiscarded int64     `json:"new_discarded"`
	Callgoose    Callgoose `json:"callgoose"`
	// Text is one sentence for a person. It holds no line break, quotation mark,
	// backslash, backtick or dollar sign, so that a script may put it between
	// quotation marks.
	Text    string    `json:"text"`
	Hint    string    `json:"hint"`
	Host    string    `json:"host"`
	Version string    `json:"version"`
	At      time.Time `json:"at"`

	// why is, for store_full, what is wrong; for the end of an outage,
	// nothingWaits or the alarm that takes over.
	why string
}

// Callgoose is the state of the receiving side.
type Callgoose struct {
	State     string     `json:"state"`
	Since     *time.Time `json:"since"`
	LastError string     `json:"last_error"`
}

const nothingWaits = "nothing waits"

func newNotice(now, ended time.Time, name string, o *occasion, s admin.Status, why string, fresh int64, over bool) Notice {
	n := Notice{
		Alarm: name, Over: over, Since: o.since.UTC(), LastedSeconds: max(int64(ended.Sub(o.since)/time.Second), 0), Count: o.count,
		Queued: s.Queued, OldestQueuedAt: s.OldestQueuedAt, Dead: s.Dead, Discarded: s.Discarded,
		Callgoose: Callgoose{s.Callgoose.State, s.Callgoose.Since, s.Callgoose.LastError},
		At:        now.UTC(), why: why,
	}
	switch name {
	case DeadLetters:
		n.NewDead = fresh
	case Discarded:
		n.NewDiscarded = fresh
	}
	n.Text = n.sentence()
	if !over {
		n.Hint = hints[name]
	}
	return n
}

var hints = map[string]string{
	Unreachable: "nothing accepted is lost: it goes out by itself, oldest first, once Callgoose answers. Until then look at the alerts in PMM. " +
		"`pmm-callgoose doctor` checks the way to Callgoose: name, proxy, firewall, certificate.",
	Held: "token or address is wrong: put a valid API token into the token file (the service takes it by itself), or correct callgoose-url and restart; " +
		"`pmm-callgoose doctor` says which. Nothing accepted is lost; until then look at the alerts in PMM.",
	DeadLetters: "`pmm-callgoose dead-letters list` says why; then `dead-letters retry` or `dead-letters drop`. " +
		"Look into PMM for what they said: Callgoose does not have them.",
	Discarded: "a filter at Callgoose does not match: `pmm-callgoose send-test` says how to repair it, " +
		"then `pmm-callgoose replay --outcome discarded`. Until then look at the alerts in PMM.",
	Paused: "`pmm-callgoose resume` ends it; what waits then goes out, oldest first. Until then look at the alerts in PMM.",
	StoreFull: "PMM's webhooks are answered with 503: look at the alerts in PMM. `pmm-callgoose status` shows the room; " +
		"free disk space, raise max-store, or bring Callgoose back so that what waits can leave.",
}

// sentence is what a person reads at 3 a.m.
func (n Notice) sentence() string {
	lasted, left := text.Span(time.Duration(n.LastedSeconds)*time.Second), nothingWaits
	if n.Queued > 0 {
		left = text.Plural(n.Queued, "alert waits", "alerts wait")
	}
	reason := ""
	if n.Callgoose.LastError != "" {
		reason = " (" + n.Callgoose.LastError + ")"
	}
	if n.Over {
		return quotable(n.ending(lasted, left, reason))
	}
	if n.OldestQueuedAt != nil && n.Queued > 0 {
		left += ", the oldest for " + text.Span(n.At.Sub(*n.OldestQueuedAt))
	}
	return quotable(n.telling(lasted, left, reason))
}

// telling says what is wrong. lasted is for how long, left what waits, reason the last
// error of Callgoose.
func (n Notice) telling(lasted, left, reason string) string {
	switch n.Alarm {
	case Held:
		return fmt.Sprintf("Callgoose has refused the service for %s%s: nobody is paged, %s.", lasted, reason, left)
	case DeadLetters:
		if n.NewDead > 0 {
			return fmt.Sprintf("%s given up and will not reach Callgoose; %s in all.",
				text.Plural(n.NewDead, "alert was", "alerts were"), text.Plural(n.Dead, "dead letter", "dead letters"))
		}
		return fmt.Sprintf("%s nobody has dealt with for %s.", text.Plural(n.Dead, "dead letter that", "dead letters that"), lasted)
	case Discarded:
		if n.NewDiscarded > 0 {
			return fmt.Sprintf("Callgoose matched no filter for %s that fire, and called nobody; %d discarded in all.",
				text.Plural(n.NewDiscarded, "alert", "alerts"), n.Discarded)
		}
		return fmt.Sprintf("%s for which Callgoose called nobody, and which nobody has dealt with for %s.", text.Plural(n.Discarded, "alert", "alerts"), lasted)
	case Paused:
		why := ""
		if n.why != "" {
			why = " (" + n.why + ")"
		}
		return fmt.Sprintf("Delivery has been paused by hand for %s%s: nobody is paged, %s.", lasted, why, left)
	case StoreFull:
		return fmt.Sprintf("Alerts from PMM have been refused for %s: %s.", lasted, cmp.Or(n.why, "the store is full or failing"))
	case Unreachable:
		return fmt.Sprintf("Callgoose has taken no alert for %s%s: nobody is paged, %s.", lasted, reason, left)
	}
	return fmt.Sprintf("%s (for %s).", n.why, lasted) // of fromPMM and of the cluster
}

// ending says what is over.
func (n Notice) ending(lasted, left, reason string) string {
	switch n.why {
	case nothingWaits:
		return fmt.Sprintf("No alert waits for Callgoose any more, after %s; whether it answers again is known with the next alert (dead letters: %d).", lasted, n.Dead)
	case Held:
		return fmt.Sprintf("Callgoose can be reached again but refuses the service%s: see the alarm %s; %s.", reason, Held, left)
	case Unreachable:
		return fmt.Sprintf("Callgoose no longer refuses the service but cannot be reached%s: see the alarm %s; %s.", reason, Unreachable, left)
	}
	switch n.Alarm {
	case DeadLetters:
		return fmt.Sprintf("The dead letters were dealt with after %s; %d from before are left.", lasted, n.Dead)
	case Discarded:
		return fmt.Sprintf("The discarded alerts were dealt with after %s; %d from before are left.", lasted, n.Discarded)
	case Paused:
		return fmt.Sprintf("Delivery is no longer paused, after %s; %s.", lasted, left)
	case StoreFull:
		return fmt.Sprintf("Alerts from PMM are accepted again, after %s; what PMM gave up sending meanwhile can be seen only in PMM.", lasted)
	case Held, Unreachable:
		return fmt.Sprintf("Callgoose takes alerts again, after %s; %s.", lasted, left)
	}
	return fmt.Sprintf("%s, after %s.", endings[n.Alarm], lasted)
}

// endings are the ends of the alarms of fromPMM and of the cluster.
var endings = map[string]string{
	admin.NATSUnreachable:       "The NATS servers answer again",
	admin.NoLeader:              "An instance leads again",
	"reconcile_mass":            "Open episodes are no longer gone in PMM all at once",
	"reconcile_missing":         "No more alerts fire in PMM without a webhook",
	"pmm_contact_point_failing": "The contact point of PMM reaches the service again",
	"pmm_not_routed":            "PMM sends to the service again what fires there",
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
