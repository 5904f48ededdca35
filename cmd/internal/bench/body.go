package bench

import (
	"fmt"
	"strings"
	"time"
)

// Bodies makes webhook bodies such as PMM's Grafana sends: one group after the
// other fires, then one after the other recovers, and again. Owned by one Load
// at a time.
type Bodies struct {
	alerts, groups int
	pad            string
	next           int // bodies handed out so far
}

// prefix is what the fingerprints of a bench begin with.
const prefix = "be7c"

// NewBodies makes bodies with that many alerts each, of about size bytes,
// over at least that many incident keys.
func NewBodies(alerts, size, keys int) *Bodies {
	b := &Bodies{alerts: max(alerts, 1)}
	b.groups = max((keys+b.alerts-1)/b.alerts, 1)
	bare := len(b.append(nil, 0, true, time.Now()))
	b.pad = strings.Repeat("All work and no play. ", max(size-bare, 0)/b.alerts/22+1)[:max(size-bare, 0)/b.alerts]
	return b
}

// Keys is the number of incident keys in use.
func (b *Bodies) Keys() int { return b.groups * b.alerts }

// Size is the number of bytes of a body.
func (b *Bodies) Size() int { return len(b.append(nil, 0, true, time.Now())) }

// atLeast makes sure that a group's recovery cannot overtake its firing on
// another connection.
func (b *Bodies) atLeast(connections int) error {
	if b.groups < 4*connections {
		return fmt.Errorf("%d connections need at least %d incident keys (--keys)", connections, 4*connections*b.alerts)
	}
	return nil
}

// Body appends the n-th body of a run to dst.
func (b *Bodies) Body(dst []byte, n int) []byte {
	return b.append(dst, n%b.groups, n/b.groups%2 == 0, time.Now())
}

// Firing is the number of alerts that fire after the bodies handed out so far.
func (b *Bodies) Firing() int { return len(b.open()) * b.alerts }

// open lists the groups that fire after next bodies.
func (b *Bodies) open() (groups []int) {
	rest, firing := b.next%b.groups, b.next/b.groups%2 == 0
	from, to := rest, b.groups // recovered so far: those before rest
	if firing {
		from, to = 0, rest
	}
	for g := from; g < to; g++ {
		groups = append(groups, g)
	}
	return groups
}

// closed begins a new round, in which everything is closed.
func (b *Bodies) closed() { b.next += 2*b.groups - b.next%(2*b.groups) }

func (b *Bodies) append(dst []byte, group int, firing bool, at time.Time) []byte {
	status, ends := "firing", "0001-01-01T00:00:00Z"
	stamp := at.UTC().Format("2006-01-02T15:04:05.000000000Z")
	if !firing {
		status, ends = "resolved", stamp
	}
	dst = fmt.Appendf(dst, `{"receiver":"bench","status":"%s","alerts":[`, status)
	for i := range b.alerts {
		if i > 0 {
			dst = append(dst, ',')
		}
		n := group*b.alerts + i
		dst = fmt.Appendf(dst, `{"status":"%s","labels":{"alertname":"pmm-callgoose bench","grafana_folder":"Bench","severity":"info","service_name":"bench-%d"},`+
			`"annotations":{"summary":"load made by pmm-callgoose bench","description":"%s"},`+
			`"startsAt":"%s","endsAt":"%s","fingerprint":"%s%012x","values":{"A":1},"orgId":1}`, status, n, b.pad, stamp, ends, prefix, n)
	}
	return fmt.Appendf(dst, `],"groupLabels":{"alertname":"pmm-callgoose bench"},"externalURL":"","version":"1",`+
		`"groupKey":"{}:{bench=\"%d\"}","truncatedAlerts":0,"orgId":1,"state":"alerting"}`, group)
}
