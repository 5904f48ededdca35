package cli

import "strings"

// examples are one or two of each command that takes flags, by its name and without that
// of the program.
var examples = map[string][]string{
	"serve": {
		"serve --config /etc/pmm-callgoose/config.yaml",
		"serve --callgoose-url https://ORG.callgoose.com/v1/process --callgoose-token-file token --data-dir ./data",
	},
	"demo":               {"demo"},
	"status":             {"status --check", "status --watch"},
	"events list":        {"events list --since 2h --severity critical", "events list --outcome queued,discarded,dead --text mysql-01"},
	"events show":        {"events show 7e7a43650e4778604656"},
	"events tail":        {"events tail --status firing --match environment=prod"},
	"events close":       {"events close pmm-18e04dbe104bb755"},
	"events park":        {"events park 7e7a43650e4778604656"},
	"events export":      {"events export --since 1d", "events export --kind event --outcome dead"},
	"events import":      {"events import notifications.jsonl"},
	"incidents list":     {"incidents list --severity critical"},
	"incidents show":     {"incidents show pmm-18e04dbe104bb755"},
	"replay":             {"replay --outcome discarded --since 3h --dry-run", "replay --outcome discarded --since 3h --yes"},
	"dead-letters list":  {"dead-letters list --since 1d"},
	"dead-letters retry": {"dead-letters retry --all", "dead-letters retry 7e7a43650e4778604656"},
	"dead-letters drop":  {`dead-letters drop --text "400 Bad Request" --yes`},
	"reconcile":          {"reconcile --dry-run", "reconcile pmm-18e04dbe104bb755"},
	"pause":              {`pause --reason "filter of the DBA service" --until 30m`},
	"resume":             {"resume"},
	"filters show":       {"filters show recommended"},
	"filters test":       {"filters test filters.yaml --since 7d"},
	"cluster adopt":      {"cluster adopt --data-dir /var/lib/pmm-callgoose --nats-url nats://n1,nats://n2"},
	"cluster leave":      {"cluster leave --data-dir ./new --nats-url nats://n1,nats://n2"},
	"cluster step-down":  {"cluster step-down"},
	"cluster snapshot":   {"cluster snapshot"},
	"setup pmm": {
		"setup pmm --pmm-url https://PMM --pmm-token-file pmm-token --webhook-url http://HOST:4667/v1/webhook --dry-run",
		"setup pmm --pmm-url https://PMM --pmm-token-file pmm-token --remove",
	},
	"doctor":       {"doctor", "doctor --pmm-url https://PMM --pmm-token-file pmm-token"},
	"send-test":    {"send-test --severity critical", "send-test --fallback"},
	"bench":        {"bench --connections 1,16 --duration 10s", "bench --admin-url https://HOST:4668 --admin-token-file token --webhook-url http://HOST:4667/v1/webhook"},
	"config show":  {"config show --output json"},
	"config check": {"config check --config config.yaml"},
	"version":      {"version --output json"},
	"health":       {"health --alive"},
}

// withExamples is a description with the examples of a command.
func withExamples(description, command string) string {
	for i, e := range examples[command] {
		switch {
		case i > 0:
			description += "\n"
		case description != "":
			description += "\n\n"
		}
		description += "   pmm-callgoose " + e
	}
	return strings.TrimRight(description, "\n")
}
