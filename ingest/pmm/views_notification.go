package pmm

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// stateReason is the annotation by which Grafana marks a recovery that came from
// lost data or an edited rule.
const stateReason = "grafana_state_reason"

// FiringNotification makes of an element of the Alertmanager's list the notification
// that Grafana should have sent for it. What is private in the list (names such as
// __alert_rule_uid__) is stripped in webhooks or stands in members of its own; all
// else is the same in both (real Grafana 12.4.3, alert by alert).
func FiringNotification(contactPoint string, listed json.RawMessage) ([]byte, error) {
	var l struct {
		Labels, Annotations                 map[string]string
		StartsAt, GeneratorURL, Fingerprint string
	}
	if err := json.Unmarshal(listed, &l); err != nil || l.Fingerprint == "" || l.StartsAt == "" {
		return nil, cmp.Or(err, errors.New("an alert without fingerprint or startsAt"))
	}
	values := json.RawMessage(l.Annotations["__values__"])
	if !json.Valid(values) {
		values = nil
	}
	return notification(contactPoint, "firing", map[string]any{
		"status": "firing", "labels": public(l.Labels), "annotations": public(l.Annotations), "startsAt": l.StartsAt, "endsAt": "0001-01-01T00:00:00Z",
		"generatorURL": l.GeneratorURL, "fingerprint": l.Fingerprint, "ruleUID": l.Labels[ruleLabel], "valueString": l.Annotations["__value_string__"], "values": values,
	}), nil
}

// RecoveryNotification makes the notification with which an episode ends. firing is
// the member of the notification that began it, or nil where that is no longer known.
func RecoveryNotification(contactPoint string, firing json.RawMessage, title, fingerprint string, startsAt, endsAt time.Time) ([]byte, error) {
	var m object
	if firing != nil {
		if err := json.Unmarshal(firing, &m); err != nil {
			return nil, fmt.Errorf("the stored alert cannot be read: %w", err)
		}
	}
	if m == nil {
		m = object{"labels": encode(map[string]string{"alertname": title})}
	}
	var annotations map[string]string
	_ = json.Unmarshal(m["annotations"], &annotations)
	if annotations[stateReason] != "" { // of the firing: it says nothing of this recovery
		delete(annotations, stateReason)
		m.set("annotations", annotations)
	}
	m.set("status", "resolved")
	m.set("fingerprint", fingerprint)
	m.set("startsAt", startsAt.UTC().Format(time.RFC3339Nano))
	m.set("endsAt", endsAt.UTC().Format(time.RFC3339Nano))
	return notification(contactPoint, "resolved", m), nil
}

func public(from map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range from {
		if !strings.HasPrefix(k, "__") || !strings.HasSuffix(k, "__") {
			out[k] = v
		}
	}
	return out
}

// notification is an envelope around one alert. Its group key begins as Grafana's
// do: one that does not is taken for the Test button's.
func notification(contactPoint, status string, member any) []byte {
	return encode(map[string]any{
		"receiver": contactPoint, "status": status, "alerts": []any{member}, "version": "1", "groupKey": "{}:{}", "truncatedAlerts": 0,
	})
}
