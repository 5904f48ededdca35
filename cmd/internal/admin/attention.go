package admin

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

// Level is how good a state is.
type Level string

// The levels. Idle: nothing was sent yet, so nothing is known.
const (
	Good Level = "good"
	Idle Level = "idle"
	Odd  Level = "warn"
	Bad  Level = "bad"
)

// Attention is one thing that a person should look at.
type Attention struct {
	Code  string `json:"code"`
	Level Level  `json:"level"` // warn or bad
	Text  string `json:"text"`  // one sentence
	Fix   string `json:"fix"`   // the way out
}

// The codes of what is found here. Others may be added by whoever finds them.
const (
	NotAccepting = "not_accepting"
	IsPaused     = "paused"
	IsHeld       = "held"
	IsDown       = "down"
	IsRefused    = "webhooks_refused"
	IsSilent     = "pmm_silent"
	IsDead       = "dead_letters"
	IsDiscarded  = "discarded"
	IsStorm      = "storm"
	IsQuiet      = "pmm_quiet"
	IsUnread     = "pmm_unreadable"

	NATSUnreachable = "nats_unreachable"
	NoLeader        = "no_leader"
	IsBehind        = "behind"
	IsOutdated      = "outdated"
	NotReplicated   = "replicas_missing"
	SettingsDiffer  = "settings_differ"
	SameName        = "instance_name"
	ClockSkew       = "clock_skew"

	HeartbeatFails    = "heartbeat_failing"
	HeartbeatWithheld = "heartbeat_withheld"
	FallbackFails     = "fallback_failing"
	FiltersDiffer     = "filters_drift"
	ServedLate        = "slo_missed"
)

const (
	// Quiet is how long no PMM may say anything, where none is watched for silence,
	// before that is odd: PMM repeats what fires every four hours as a rule.
	Quiet = 48 * time.Hour
	// recently is how long a person should look at an answer that the filters cannot give.
	recently = 24 * time.Hour
	// unreadMost is how many consecutive comparisons may not be able to read a PMM.
	unreadMost = 3
	// mostBehind is how many transactions an instance may be behind the one that leads.
	mostBehind = 1000
	// mostSkew is by how many seconds the clocks of NATS and of this machine may differ.
	mostSkew = 120
)

// add takes in what was found: the way out, and one sentence.
func (s *Status) add(code string, level Level, fix, format string, args ...any) {
	s.Attention = append(s.Attention, Attention{Code: code, Level: level, Text: fmt.Sprintf(format, args...), Fix: fix})
}

// Conclude makes headline, level and attention of what is known. What stands
// in Attention already stays, behind what is found here.
func (s *Status) Conclude() {
	others := s.Attention
	s.Attention = []Attention{}
	if !s.Store.Accepting {
		s.add(NotAccepting, Bad, "Until this is repaired look at the alerts in PMM. Make room in the data directory or raise --max-store; where there is room look at its disk, or at NATS. The log says more.",
			"Webhooks are NOT ACCEPTED (503): %s.", strings.TrimSuffix(s.Store.Problem, "."))
	}
	s.concludeCluster()
	s.concludeCallgoose()
	if r := s.Refused; r.LastHour > 0 && r.LastAt != nil {
		level := Odd
		if s.refusedLast() {
			level = Bad
		}
		s.add(IsRefused, level, "Correct URL and credentials in PMM's contact point (pmm-callgoose setup pmm does it), press Test there.",
			"%s refused in the last hour, the last from %s with %d: %s.", text.Plural(r.LastHour, "webhook was", "webhooks were"),
			text.Short(60, r.LastRemote), r.LastCode, strings.TrimSuffix(text.Short(200, r.LastReason), "."))
	}
	s.concludePMM()
	s.concludeStorms()
	if s.Dead > 0 {
		s.add(IsDead, Bad, "pmm-callgoose dead-letters list says why; then dead-letters retry or drop.",
			"%s given up: Callgoose does not have %s.", text.Plural(s.Dead, "event was", "events were"), pick(s.Dead == 1, "it", "them"))
	}
	if n := min(s.DiscardedDay, s.Discarded); n > 0 {
		s.add(IsDiscarded, Bad, "Correct the filter at Callgoose (pmm-callgoose send-test says how), then pmm-callgoose replay --outcome discarded.",
			"Callgoose answered, but no filter matched %s of the last day: nobody was called.", text.Plural(n, "event", "events"))
	}
	s.concludeBeside()
	if p := s.Ping; p != nil && p.Withheld != "" && len(s.Attention)+len(others) == 0 {
		s.add(HeartbeatWithheld, Odd, "Whoever watches the heartbeat is about to be called; pmm-callgoose doctor says more.", "The heartbeat is withheld: %s.", p.Withheld)
	}
	s.Attention = append(s.Attention, others...)
	s.headline()
}

// concludeCluster looks at the instances on the same NATS, and at NATS.
func (s *Status) concludeCluster() {
	c := s.Cluster
	if c == nil || c.NATS == nil {
		return
	}
	if !c.NATS.Connected {
		s.add(NATSUnreachable, Bad, "Look at the NATS servers and at the way to them: pmm-callgoose doctor asks each. Until they answer look at the alerts in PMM.",
			"The NATS servers do not answer this instance.")
		return
	}
	if c.Leader == "" {
		s.add(NoLeader, Bad, "It goes on by itself; pmm-callgoose status --cluster and the log say more.", "No instance leads: nothing is delivered.")
	}
	switch {
	case c.Outdated:
		s.add(IsOutdated, Bad, "Install on this instance the version of the one that leads.",
			"This instance is older than the one that leads: it takes webhooks, what it shows is old, and it never leads.")
	case c.Behind != nil && *c.Behind > mostBehind:
		s.add(IsBehind, Odd, "It catches up by itself; look at the load of this machine and at its way to NATS.",
			"This instance is %d transactions behind.", *c.Behind)
	}
	for _, st := range c.NATS.Streams {
		if st.Current < c.NATS.Replicas {
			s.add(NotReplicated, Odd, "nats stream info "+st.Name+" names the server that is away or behind; it catches up by itself.",
				"%d of %d NATS servers hold all of the stream %s: one lost more may be one too many.", st.Current, c.NATS.Replicas, st.Name)
		}
	}
	if len(c.SettingsDiffer) > 0 {
		s.add(SettingsDiffer, Odd, "Give all instances the same settings and restart those that differ: pmm-callgoose config show prints them.",
			"Other settings than at %s, which leads, would hold after a take-over: %s.", text.Short(40, c.Leader), strings.Join(c.SettingsDiffer, ", "))
	}
	if c.SameName {
		s.add(SameName, Odd, "Give each instance a name of its own (--instance).", "Another instance had the name of this one before, which is called %s now.", text.Short(40, c.Instance))
	}
	if skew := time.Duration(c.ClockSkew * float64(time.Second)); skew.Abs().Seconds() > mostSkew {
		s.add(ClockSkew, Odd, "Set the clocks of this machine and of the NATS servers (chrony, systemd-timesyncd): what PMM says of time is compared with the clock here.",
			"The clock of NATS is %s %s the clock of this machine.", text.Span(skew.Abs()), pick(skew > 0, "ahead of", "behind"))
	}
}

func (s *Status) concludeStorms() {
	for _, storm := range s.Storms {
		if storm.Since != nil {
			s.add(IsStorm, Odd, "They go out when it is calm, or once pmm-callgoose events close "+cmp.Or(storm.Key, "KEY")+" ends the storm; pmm-callgoose events list --outcome queued names them.",
				"Storm: %s from %s since %s, %s.", text.Plural(storm.Alerts, "alert", "alerts"), text.Short(40, storm.Source), text.Stamp(*storm.Since),
				text.Plural(storm.Waiting, "event waits", "events wait"))
		}
	}
}

// concludePMM looks at whether anything still comes in.
func (s *Status) concludePMM() {
	var last time.Time
	watched := false
	for _, p := range s.Sources {
		watched = watched || p.ExpectEvery > 0
		if p.LastHeardAt != nil && p.LastHeardAt.After(last) {
			last = *p.LastHeardAt
		}
		if r := p.Reconcile; r != nil && r.LastPassAt != nil && r.Failures == 0 && r.LastPassAt.After(last) {
			last = *r.LastPassAt
		}
		if p.SilentSince != nil {
			s.add(IsSilent, Bad, "Look at that PMM, at its heartbeat rule, and at the way from it to here.",
				"PMM %s is silent since %s.", text.Short(40, p.Name), text.Stamp(*p.SilentSince))
		}
		if r := p.Reconcile; r != nil && r.Failures >= unreadMost {
			s.add(IsUnread, Odd, "Look at that PMM, at --pmm-url and at its token; pmm-callgoose doctor says which.",
				"PMM %s cannot be compared with: %s.", text.Short(40, p.Name), strings.TrimSuffix(text.Short(200, r.Skipped), "."))
		}
	}
	if !watched && !last.IsZero() && time.Since(last) > Quiet {
		s.add(IsQuiet, Odd, "Press Test in PMM's contact point: if nothing comes in here, its URL or its notification policy is wrong. --expect-every watches for silence.",
			"No PMM has sent anything since %s.", text.Stamp(last))
	}
}

// concludeBeside looks at what runs besides the delivery to Callgoose.
func (s *Status) concludeBeside() {
	if p := s.Ping; p != nil && p.LastError != "" {
		s.add(HeartbeatFails, Odd, "Look at the URL in the file of --ping-url-file, and at the way out of this machine: whoever watches it is about to be called.",
			"The heartbeat was not taken: %s.", text.Short(200, p.LastError))
	}
	if f := s.Fallback; f != nil && f.LastError != "" {
		level := Odd
		if s.Callgoose.State == event.Down || s.Callgoose.State == event.Held {
			level = Bad
		}
		s.add(FallbackFails, level, "Call by hand; pmm-callgoose send-test --fallback tries the other way out.", "The last message by the other way out did not get through: %s.", text.Short(200, f.LastError))
	}
	if f := s.Filters; f != nil && f.LastAt != nil && time.Since(*f.LastAt) < recently {
		s.add(FiltersDiffer, Odd, "Compare the filters at Callgoose with the file of --callgoose-filters; pmm-callgoose filters test FILE says what they do.",
			"%s not what --callgoose-filters say, the last at %s.", text.Plural(f.Drift, "answer of Callgoose is", "answers of Callgoose are"), text.Stamp(*f.LastAt))
	}
	if o := s.SLO; o != nil && o.missed(s.Queued+s.Discarded+s.Dead) {
		s.add(ServedLate, Odd, "The chart of the page shows when nobody was called, pmm-callgoose events list --outcome delivered what came late. Two days without a late one end this.",
			"%d of %s of the last %d days were not taken within %.0f s, some of them today or yesterday: more than %.0f %%.",
			o.Events-o.InTime, text.Plural(o.Events, "firing event", "firing events"), o.Days, o.WithinSeconds, 100*(1-o.Objective))
	}
}

// concludeCallgoose looks at the state of Callgoose's side.
func (s *Status) concludeCallgoose() {
	c, reason := s.Callgoose, ""
	if c.LastError != "" {
		reason = " (" + strings.TrimSuffix(text.Short(200, c.LastError), ".") + ")"
	}
	switch {
	case c.State == event.Paused:
		why := ""
		if p := s.Pause; p != nil {
			why = " by " + text.Short(80, p.By)
			if !p.Until.IsZero() {
				why += " until " + text.Stamp(p.Until)
			}
			if p.Reason != "" {
				why += " (" + text.Short(200, p.Reason) + ")"
			}
		}
		s.add(IsPaused, Odd, "pmm-callgoose resume ends it; webhooks are accepted meanwhile.", "Delivery is paused%s; %s.", why, s.waits())
	case c.State == event.Held:
		s.add(IsHeld, Bad, "Put a valid API token into the token file, or correct --callgoose-url and restart: pmm-callgoose doctor says which. What waits goes out once that is done.",
			"Callgoose refuses the token or the address%s: everything is held, %s.", reason, s.waits())
	case c.State == event.Down && s.Queued > 0:
		s.add(IsDown, Bad, "It goes out by itself, oldest first, once Callgoose answers; until then look at the alerts in PMM. pmm-callgoose doctor checks the way.",
			"Callgoose %s%s: %s.", pick(strings.HasPrefix(c.LastError, "callgoose answered"), "answers with errors", "cannot be reached"), reason, s.waits())
	}
}

// refusedLast reports whether the newest refused webhook is younger than the newest
// that was accepted.
func (s *Status) refusedLast() bool {
	for _, p := range s.Sources {
		if p.LastHeardAt != nil && s.Refused.LastAt != nil && p.LastHeardAt.After(*s.Refused.LastAt) {
			return false
		}
	}
	return s.Refused.LastAt != nil
}

// headline says in a few sentences what is in Attention, or that all is well.
func (s *Status) headline() {
	var said []string
	for _, a := range s.Attention {
		said = append(said, a.Text)
		if s.Level != Bad {
			s.Level = a.Level
		}
	}
	last, calm := s.LastDelivered, ""
	switch {
	case len(said) > 0:
	case s.Callgoose.State == event.Down:
		s.Level, calm = Odd, "Callgoose could not be reached when it was last tried"
	case last == nil:
		s.Level, calm = Idle, "Nothing was sent to Callgoose yet"
	case last.Effect == "unknown":
		s.Level, calm = Odd, "Callgoose took the last event, but its answer could not be read"
	case last.Status == event.Firing && (last.Effect == "duplicate" || last.Effect == "none"):
		s.Level, calm = Odd, "Callgoose takes events, but opened nothing for the last one: its incident was open already"
	default:
		s.Level, calm = Good, "Callgoose takes events"
	}
	if calm != "" {
		said = []string{calm + "; " + s.waits() + "."}
	}
	if c := s.Cluster; c != nil && c.Role == "leader" {
		said = append([]string{"Instance " + c.Instance + " leads."}, said...)
	} else if c != nil && c.Leader != "" {
		said = append([]string{"Instance " + c.Instance + " follows " + c.Leader + "."}, said...)
	}
	s.Headline = strings.Join(said, " ")
}

// waits says how much waits.
func (s *Status) waits() string {
	return pick(s.Queued == 0, "nothing waits", text.Plural(s.Queued, "event waits", "events wait"))
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// Did says in words what Callgoose did with the event.
func (l LastDelivered) Did() string {
	switch l.Effect {
	case "created":
		return "opened an incident"
	case "resolved":
		return "closed the incident"
	case "duplicate", "none":
		return "nothing to do: it knew already"
	}
	return "its answer could not be read"
}
