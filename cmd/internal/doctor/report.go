package doctor

import "fmt"

// Severity is how bad a finding is.
type Severity string

// The severities. Only Fail makes the whole examination fail.
const (
	OK   Severity = "ok"
	Warn Severity = "warn"
	Fail Severity = "fail"
	Skip Severity = "skip" // could not be checked; the text says why
)

// Finding is what one check found.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	// Fix says what to do, one step a line. It is never empty for Warn and Fail.
	Fix []string `json:"fix,omitempty"`
}

// Report is all findings, in the order in which alerts travel.
type Report struct {
	Findings []Finding `json:"findings"`
	OK       int       `json:"ok"`
	Warnings int       `json:"warnings"`
	Failed   int       `json:"failed"`
	Skipped  int       `json:"skipped"`
}

func (r *Report) add(check string, s Severity, fix []string, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{Check: check, Severity: s, Text: fmt.Sprintf(format, args...), Fix: fix})
	switch s {
	case OK:
		r.OK++
	case Warn:
		r.Warnings++
	case Fail:
		r.Failed++
	case Skip:
		r.Skipped++
	}
}

func (r *Report) ok(check, format string, args ...any) { r.add(check, OK, nil, format, args...) }

func (r *Report) skip(check, format string, args ...any) { r.add(check, Skip, nil, format, args...) }

// fix is the way out of a warning or a failure.
func fix(lines ...string) []string { return lines }

func (r *Report) warn(check string, fix []string, format string, args ...any) {
	r.add(check, Warn, fix, format, args...)
}

func (r *Report) fail(check string, fix []string, format string, args ...any) {
	r.add(check, Fail, fix, format, args...)
}
