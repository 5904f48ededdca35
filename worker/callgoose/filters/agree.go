package filters

import (
	"fmt"
)

// Disagree says how an answer of Callgoose (a 2xx, and its effect as the service
// names it) cannot be that of these filters; "" when it can. What is open there is
// not asked: a trigger may have found its incident open, a resolve nothing to close.
func Disagree(set []Filter, body []byte, code int, effect string) string {
	trigger, resolve := First(set, Decode(body))
	trigger, resolve = trigger+1, resolve+1
	switch {
	case effect == "duplicate", effect == "unknown", code/100 != 2:
		return ""
	case code == 202 && trigger > 0:
		return fmt.Sprintf("it was discarded, although the trigger of filter %d takes it", trigger)
	case code == 202 && resolve > 0:
		return fmt.Sprintf("it was discarded, although the resolve of filter %d takes it", resolve)
	case code == 202:
		return ""
	case trigger+resolve == 0:
		return "it was taken, although no filter takes it"
	case effect == "created" && trigger == 0:
		return "it opened an incident, although no trigger takes it"
	case effect == "resolved" && resolve == 0:
		return "it closed an incident, although no resolve takes it"
	}
	return ""
}
