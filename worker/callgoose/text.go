package callgoose

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of texts. Callgoose documents none: these fit the columns and messages
// that such texts usually end in.
const (
	maxTitle       = 255     // characters
	maxDescription = 8 << 10 // bytes, with the line that Late adds
	lateRoom       = 128     // bytes of that line, at most
	shortLength    = 100     // characters
)

// ShownName is the name of an alert that filters mapping on the name see, never
// empty: its own with the instance in brackets. Two alerts may have the same one.
func ShownName(labels map[string]string, fingerprint string) string {
	return name(labels) + " [" + instance(labels, fingerprint) + "]"
}

// Suffix tells alerts with the same shown name apart: six hexadecimal digits made
// from the incident key, always the same.
func Suffix(incidentKey string) string {
	sum := sha256.Sum256([]byte(incidentKey))
	return hex.EncodeToString(sum[:3])
}

// name is the alert's name, never empty.
func name(labels map[string]string) string {
	return first(labels["alertname"], "alert without a name")
}

// title is the incident's title, never empty.
func title(a Alert) string {
	s := name(a.Labels)
	if summary := first(a.Annotations["summary"]); summary != "" {
		s += " - " + summary
	}
	return cut(s, maxTitle)
}

// description falls back from the description to the summary, then to name and
// instance: without one Callgoose would show the raw payload.
func description(a Alert, recovery string) string {
	text := first(a.Annotations["description"], a.Annotations["summary"],
		name(a.Labels)+" on "+instance(a.Labels, a.Fingerprint))
	words := ""
	if a.RecoveryWords {
		words = notConfirmed(recovery, a.Annotations[StateReason])
	}
	return cutBytes(text, maxDescription-lateRoom-len(words)) + words
}

// notConfirmed says what an unconfirmed recovery rests on.
func notConfirmed(recovery, reason string) string {
	s := ""
	switch recovery {
	case RecoveryHollow:
		s = "\n\nThis recovery is not confirmed: PMM lost the data, so the fault may still be there"
	case RecoveryByEdit:
		s = "\n\nThis recovery is not confirmed: the alert rule was changed, paused or deleted"
	default:
		return ""
	}
	if RecoveryKind(map[string]string{StateReason: reason}) == recovery {
		s += " (" + reason + ")" // one of the words that are known
	}
	return s + "."
}

// short is what fits into a text message or is read out: what, where, severity.
// A name that is too long is cut first, the severity last.
func short(a Alert) string {
	limit := a.ShortLength
	if limit <= 0 {
		limit = shortLength
	}
	tail := ""
	if severity := line(first(a.Labels["severity"])); severity != "" {
		tail = ", " + cut(severity, limit/4)
	}
	if place := line(where(a.Labels)); place != "" {
		tail = " on " + cut(place, limit/2) + tail
	}
	what := cut(line(name(a.Labels)), max(limit-utf8.RuneCountInString(tail), limit/8))
	return cut(what+tail, limit)
}

// where is the service, node or address that is affected, in words a person
// knows; "" when no label says it.
func where(labels map[string]string) string {
	return first(labels["service_name"], labels["node_name"], labels["instance"])
}

// urgency is high for severities that call somebody at night.
func urgency(a Alert) string {
	high := a.UrgencyHigh
	if high == nil {
		high = []string{"emergency", "alert", "critical", "error"}
	}
	severity := strings.TrimFunc(a.Labels["severity"], invisible)
	if slices.ContainsFunc(high, func(s string) bool { return strings.EqualFold(s, severity) }) {
		return "high"
	}
	return "low"
}

func instance(labels map[string]string, fingerprint string) string {
	return first(labels["instance"], labels["service_name"], labels["node_name"], fingerprint)
}

// first is the first text in which there is something to see, "" when there is none.
func first(texts ...string) string {
	for _, s := range texts {
		if strings.ContainsFunc(s, func(r rune) bool { return !invisible(r) }) {
			return s
		}
	}
	return ""
}

// invisible reports whether r leaves no mark: white space, control and format characters,
// and what fonts draw as nothing.
func invisible(r rune) bool {
	if ' ' < r && r < 0x7f {
		return false
	}
	return r == '\u2800' || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Z,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// line is s in one line, with single blanks.
func line(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.In(r, unicode.Cc, unicode.Z)
	}), " ")
}

// cut shortens s to at most limit characters, where it can at the end of a word.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	at, n := 0, 0 // the byte behind limit-1 characters
	for i := range s {
		if n++; n == limit {
			at = i
		}
		if n > limit {
			if word := strings.LastIndexFunc(s[:i], unicode.IsSpace); word > at/2 {
				at = word
			}
			return strings.TrimRightFunc(s[:at], unicode.IsSpace) + "…"
		}
	}
	return s
}

// cutBytes shortens s to at most limit bytes.
func cutBytes(s string, limit int) string {
	const more = "…"
	if len(s) <= limit {
		return s
	}
	end := limit - len(more)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + more
}
