package doctor

import (
	"encoding/json"
	"fmt"
)

// FilterFix says what to set in Callgoose when it answered, but a filter did not
// do its part: the trigger for a firing event, the resolve for a recovery. The
// names are those of Callgoose's form; those in quotes are typed with them.
func FilterFix(firing bool, severity string) []string {
	lines := []string{"In Callgoose, in the API filters of the service that the token belongs to:"}
	row := func(field, value string) { lines = append(lines, fmt.Sprintf("  %-48s %s", field, value)) }
	if firing {
		row("Trigger: Payload JSON Key / Key Value Contains", `"status" / firing`)
		row("Trigger: second pair (or leave it empty)", fmt.Sprintf(`"severity" / %s`, severity))
		row("Map Incident With", `"incident_key"`)
		row("Incident Title From", `"title"`)
		row("Incident Description From", `"description"`)
	}
	row("Resolve (switch it on): key / contains", `"status" / resolved`)
	row("Resolve: Incident Mapped With", `"incident_key", as in Map Incident With`)
	if firing {
		return append(lines,
			fmt.Sprintf("The test had severity %s: a filter that asks for another one does not match it (--severity critical).", severity),
			"The filters right? Then the service is disabled or in maintenance, or the token belongs to another service.")
	}
	return append(lines, "Then close the test's incident by hand: its recovery has been used up.")
}

// testBodies are a firing event and its recovery as they would be sent.
type testAlert struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    string            `json:"startsAt"`
	EndsAt      string            `json:"endsAt"`
}

func (a testAlert) raw() []byte {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // strings always encode
	}
	return b
}
