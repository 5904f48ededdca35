package pmmtest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// stamp is how the Alertmanager's API writes a time.
const stamp = "2006-01-02T15:04:05.000Z"

// policies are the tree, which is replaced and never changed.
func (f *Fake) policies() *route {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tree
}

// alerting answers what a Viewer may read of the alerts. It is called with the lock.
func (f *Fake) alerting(w http.ResponseWriter, r *http.Request) bool {
	path := strings.TrimPrefix(r.URL.Path, "/graph/api/")
	readers := map[string]func(*node) any{
		"alertmanager/grafana/api/v2/alerts": func(n *node) any { return f.World.list(n) },
		"prometheus/grafana/api/v1/rules": func(n *node) any {
			return f.World.listRules(n, r.URL.Query().Get("includeInternalLabels") == "true")
		},
		"alertmanager/grafana/config/api/v1/receivers": func(*node) any { return f.receivers() },
	}
	read, ok := readers[path]
	if !ok || r.Method != http.MethodGet {
		return false
	}
	if !f.may(w, r, "viewer", "alert.instances:read, alert.rules:read") {
		return true
	}
	n := f.World.nodes[f.World.turn%len(f.World.nodes)]
	f.World.turn++
	if f.World.Now.Before(n.up) {
		page(w, http.StatusBadGateway)
		return true
	}
	w.Header().Set("Date", f.World.Now.Format(http.TimeFormat))
	answer(w, http.StatusOK, read(n))
	return true
}

// list is the Alertmanager's.
func (w *World) list(n *node) []map[string]any {
	out := []map[string]any{}
	for _, fp := range slices.Sorted(maps.Keys(n.alerts)) {
		a := n.alerts[fp]
		if !w.Now.Before(a.endsAt) {
			continue
		}
		receivers := []map[string]string{}
		names := []string{a.rule.Receiver}
		if a.rule.Receiver == "" {
			names = nil
			for _, m := range w.running.match(a.labels, route{}) {
				names = append(names, m.Receiver)
			}
		}
		for _, name := range names {
			receivers = append(receivers, map[string]string{"name": name})
		}
		status := map[string]any{"inhibitedBy": []string{}, "silencedBy": []string{}, "state": "active"}
		if w.silenced(a.state) {
			status["silencedBy"], status["state"] = []string{"60280818-acdc-4f5a-952d-d60b5b7156cd"}, "suppressed"
		}
		service := a.labels["service_name"]
		out = append(out, map[string]any{
			"annotations": map[string]string{
				"__orgId__": "1", "__values__": `{"A":1}`, "summary": a.rule.Title + " (" + service + ")", "description": "value 1",
				"__value_string__": "[ var='A' labels={service_name=" + service + "} type='query' value=1 ]",
			},
			"startsAt": a.startsAt.Format(stamp), "endsAt": a.endsAt.Format(stamp), "updatedAt": a.startsAt.Format(stamp),
			"fingerprint": fp, "receivers": receivers, "status": status, "labels": a.labels,
			"generatorURL": "https://pmm.example.net/graph/alerting/grafana/" + a.rule.UID + "/view",
		})
	}
	return out
}

func (w *World) listRules(n *node, internal bool) any {
	groups := []map[string]any{}
	for _, uid := range slices.Sorted(maps.Keys(w.rules)) {
		r := w.rules[uid]
		if w.hidden[r.Folder] {
			continue
		}
		alerts := []map[string]any{}
		for _, fp := range slices.Sorted(maps.Keys(n.states)) {
			s := n.states[fp]
			if s.rule != r {
				continue
			}
			labels := maps.Clone(s.labels)
			labels["__alert_rule_namespace_uid__"] = r.Folder
			if !internal {
				delete(labels, "__alert_rule_namespace_uid__")
				delete(labels, "__alert_rule_uid__")
			}
			text := "Normal"
			if s.firing {
				text = "Alerting"
			}
			alerts = append(alerts, map[string]any{"labels": labels, "annotations": map[string]string{}, "state": text, "activeAt": s.startsAt, "value": ""})
		}
		health := n.health[uid]
		if health == "" {
			health = "ok" // by design, of a rule that was not scheduled yet
		}
		rule := map[string]any{
			"state": "inactive", "name": r.Title, "alerts": alerts, "uid": uid, "folderUid": r.Folder, "health": health, "type": "alerting",
			"lastEvaluation": n.evaluated[uid].Format(time.RFC3339), "evaluationTime": 0.01, "isPaused": r.Paused,
		}
		if r.Receiver != "" {
			rule["notificationSettings"] = map[string]any{"receiver": r.Receiver, "group_wait": "10s", "group_interval": "1m"}
		}
		groups = append(groups, map[string]any{"name": uid, "file": r.Folder, "folderUid": r.Folder, "interval": r.Interval.Seconds(), "rules": []any{rule}})
	}
	return map[string]any{"status": "success", "data": map[string]any{"groups": groups, "totals": map[string]int{}}}
}

// receivers tells of every contact point how the last attempt went, and of "empty",
// which a fresh Grafana 12.4 has as default: without integrations it tells nobody.
func (f *Fake) receivers() any {
	out := []map[string]any{{"active": true, "integrations": []any{}, "name": "empty"}}
	for _, p := range f.points {
		try := f.World.tries[p.Name]
		i := map[string]any{
			"name": p.Type, "sendResolved": !p.NoResolved, "lastNotifyAttempt": try.at.Format(stamp), "lastNotifyAttemptDuration": "0s",
		}
		if try.err != "" {
			i["lastNotifyAttemptError"] = try.err
		}
		out = append(out, map[string]any{"active": true, "name": p.Name, "integrations": []any{i}})
	}
	return out
}

// alertRules is the provisioning API's list of the rules.
func (w *World) alertRules() any {
	out := []map[string]any{}
	for _, uid := range slices.Sorted(maps.Keys(w.rules)) {
		r := w.rules[uid]
		m := map[string]any{"uid": uid, "title": r.Title, "folderUID": r.Folder, "isPaused": r.Paused, "notification_settings": nil}
		if r.Receiver != "" {
			m["notification_settings"] = map[string]string{"receiver": r.Receiver}
		}
		out = append(out, m)
	}
	return out
}

// may refuses who has not the role.
func (f *Fake) may(w http.ResponseWriter, r *http.Request, role, permissions string) bool {
	ranks := []string{"", "none", "viewer", "editor", "admin"}
	who := f.who(r)
	switch {
	case who == "" && f.since(9, 4):
		public(w, http.StatusUnauthorized, "api-key.invalid", "Invalid API key")
	case who == "":
		refuse(w, http.StatusUnauthorized, "Invalid API key")
	case slices.Index(ranks, who) < slices.Index(ranks, role):
		answer(w, http.StatusForbidden, json.RawMessage(`{"accessErrorId":"ACE0123456789","title":"Access denied","message":"You'll need additional permissions to perform this action. Permissions needed: any of `+permissions+`"}`))
	default:
		return true
	}
	return false
}
