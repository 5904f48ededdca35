package config

import (
	"slices"
	"strings"
)

// EnvPrefix begins the name of every environment variable of ours.
const EnvPrefix = "PMM_CALLGOOSE_"

// EnvName is the environment variable of a flag.
func EnvName(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Kind is the type of an option's value, and its placeholder in help texts.
type Kind string

// The kinds of options.
const (
	KindText     Kind = "text"
	KindEnum     Kind = "word" // one of Option.Values
	KindBool     Kind = "bool"
	KindInt      Kind = "number"
	KindRate     Kind = "events/s"
	KindDuration Kind = "duration"
	KindExpect   Kind = "duration|source=duration,..."
	KindSize     Kind = "size"
	KindAddress  Kind = "host:port"
	KindURL      Kind = "url"
	KindPath     Kind = "path"
	KindLabels   Kind = "label=value"
	KindSecret   Kind = "file" // names the file that holds a secret
	KindPMMs     Kind = "[source=]url"
	KindPercent  Kind = "percent"
)

// Option is one row of the table.
type Option struct {
	Name    string // the flag without dashes; also the YAML key
	Group   string
	Kind    Kind
	Default string // as a user would write it
	Usage   string
	Values  []string // for KindEnum
	Off     string   // the word that stands for zero, if zero is allowed
	Env     string
	Secret  bool
	// Many may be given several times on the command line: a list, separated by commas.
	Many bool

	field func(*Config) any // the pointer that the value goes to
}

// Credential is the name of a secret without "-file": its file in
// $CREDENTIALS_DIRECTORY, and, through EnvName, its environment variable.
// It is empty for options that are no secret.
func (o Option) Credential() string {
	if !o.Secret {
		return ""
	}
	return strings.TrimSuffix(o.Name, "-file")
}

// plainTwin names the option whose value the file may hold instead: nats-url for
// nats-url-file. It is empty for other options.
func (o Option) plainTwin() string {
	if _, ok := find(o.Credential()); ok {
		return o.Credential()
	}
	return ""
}

// inline tells whether the secret may stand in an environment variable too.
func (o Option) inline() bool {
	return o.Secret && o.plainTwin() == "" && o.Name != "nats-creds-file"
}

// Setting is the name under which Effective shows the option.
func (o Option) Setting() string {
	if o.Secret && o.plainTwin() == "" {
		return o.Credential()
	}
	return o.Name
}

// Options returns the table in documentation order.
func Options() []Option { return slices.Clone(table) }

var table = group("Intake from PMM",
	Option{
		Name: "listen", Kind: KindAddress, Default: "127.0.0.1:4667", field: func(c *Config) any { return &c.Listen },
		Usage: "address for webhooks; beyond loopback it needs one of the ingest secrets, of at least 8 characters",
	},
	Option{
		Name: "ingest-token-file", Kind: KindSecret, field: func(c *Config) any { return &c.IngestToken },
		Usage: "file with the bearer token that PMM must send, or with lines NAME TOKEN: then each token is good for the source of its name only",
	},
	Option{
		Name: "ingest-basic-auth-file", Kind: KindSecret, field: func(c *Config) any { return &c.IngestBasicAuth },
		Usage: "file with the user:password that PMM must send",
	},
	Option{
		Name: "ingest-hmac-secret-file", Kind: KindSecret, field: func(c *Config) any { return &c.IngestHMACSecret },
		Usage: "file with the secret of Grafana's HMAC signature (PMM 3.2 and later)",
	},
	Option{
		Name: "ingest-hmac-timestamp-header", Kind: KindText, field: func(c *Config) any { return &c.IngestHMACTimestampHeader },
		Usage: "header with the signed time, as set in the contact point; with it a captured webhook is of no use to anybody",
	},
	Option{
		Name: "allow-unauthenticated", Kind: KindBool, Default: "false", field: func(c *Config) any { return &c.AllowUnauthenticated },
		Usage: "accept webhooks from anyone who can reach --listen",
	},
	Option{
		Name: "tls-cert", Kind: KindPath, field: func(c *Config) any { return &c.TLSCert },
		Usage: "certificate chain (PEM) to serve webhooks over HTTPS",
	},
	Option{
		Name: "tls-key", Kind: KindPath, field: func(c *Config) any { return &c.TLSKey },
		Usage: "private key (PEM) of --tls-cert",
	},
	Option{
		Name: "tls-client-ca", Kind: KindPath, field: func(c *Config) any { return &c.TLSClientCA },
		Usage: "accept only clients with a certificate from these authorities (PEM)",
	},
	Option{
		Name: "max-body", Kind: KindSize, Default: "10MiB", field: func(c *Config) any { return &c.MaxBody },
		Usage: "largest webhook body accepted, at most 30MiB",
	},
	Option{
		Name: "max-connections", Kind: KindInt, Default: "1024", field: func(c *Config) any { return &c.MaxConnections },
		Usage: "largest number of open connections to --listen; never more than half of the files this process may open",
	},
).group("Callgoose",
	Option{
		Name: "callgoose-url", Kind: KindURL, field: func(c *Config) any { return &c.CallgooseURL },
		Usage: "endpoint that events are sent to; from= and token= inside it are understood",
	},
	Option{
		Name: "callgoose-token-file", Kind: KindSecret, field: func(c *Config) any { return &c.CallgooseToken },
		Usage: "file with the API token",
	},
	Option{
		Name: "callgoose-auth", Kind: KindEnum, Values: []string{"bearer", "query"}, Default: "bearer", field: func(c *Config) any { return &c.CallgooseAuth },
		Usage: "send the token as a header or as token= in the URL; a URL that holds token= means query",
	},
	Option{
		Name: "callgoose-from", Kind: KindText, Default: "PerconaPMM", field: func(c *Config) any { return &c.CallgooseFrom },
		Usage: "the from= that selects the API filter",
	},
	Option{
		Name: "callgoose-ca", Kind: KindPath, field: func(c *Config) any { return &c.CallgooseCA },
		Usage: "trust these authorities (PEM) besides the system's",
	},
	Option{
		Name: "callgoose-filters", Kind: KindPath, field: func(c *Config) any { return &c.CallgooseFilters },
		Usage: "file with the filters of Callgoose, as filters show prints them: answers that they cannot give are warned of",
	},
	Option{
		Name: "allow-http", Kind: KindBool, Default: "false", field: func(c *Config) any { return &c.AllowHTTP },
		Usage: "allow plain http:// URLs beyond loopback; what is sent, secrets included, can then be read on the way",
	},
).group("Delivery",
	Option{
		Name: "incident-by", Kind: KindEnum, Values: []string{"alert", "alertname"}, Default: "alert", field: func(c *Config) any { return &c.IncidentBy },
		Usage: "one incident for each alert, or for each alert name",
	},
	Option{
		Name: "resend-after", Kind: KindDuration, Default: "off", Off: "off", field: func(c *Config) any { return &c.ResendAfter },
		Usage: "send a repeat of a firing alert again after this long",
	},
	Option{
		Name: "on-backlog", Kind: KindEnum, Values: []string{"deliver", "collapse"}, Default: "deliver", field: func(c *Config) any { return &c.OnBacklog },
		Usage: "after an outage, deliver or collapse what fired and resolved during it",
	},
	Option{
		Name: "late-after", Kind: KindDuration, Default: "5m", field: func(c *Config) any { return &c.LateAfter },
		Usage: "an event delivered later than this says so",
	},
	Option{
		Name: "retry-min", Kind: KindDuration, Default: "1s", field: func(c *Config) any { return &c.RetryMin },
		Usage: "shortest wait between attempts",
	},
	Option{
		Name: "retry-max", Kind: KindDuration, Default: "1m", field: func(c *Config) any { return &c.RetryMax },
		Usage: "longest wait between attempts",
	},
	Option{
		Name: "retry-for", Kind: KindDuration, Default: "720h", field: func(c *Config) any { return &c.RetryFor },
		Usage: "a firing event that could not be delivered for this long becomes a dead letter",
	},
	Option{
		Name: "concurrency", Kind: KindInt, Default: "16", field: func(c *Config) any { return &c.Concurrency },
		Usage: "number of requests to Callgoose at the same time, 1 to 1024",
	},
	Option{
		Name: "rate", Kind: KindRate, Default: "unlimited", Off: "unlimited", field: func(c *Config) any { return &c.Rate },
		Usage: "largest number of events per second sent to Callgoose",
	},
	Option{
		Name: "timeout", Kind: KindDuration, Default: "15s", field: func(c *Config) any { return &c.Timeout },
		Usage: "longest time for one request to Callgoose",
	},
).group("What PMM says",
	Option{
		Name: "pmm-url", Kind: KindPMMs, Many: true, field: func(c *Config) any { return &c.PMMURL },
		Usage: "address of PMM, to ask what fires there; several: SOURCE=URL, as in the URL of its webhook, separated by commas or repeated",
	},
	Option{
		Name: "pmm-token-file", Kind: KindSecret, field: func(c *Config) any { return &c.PMMToken },
		Usage: "file with a service account token of PMM, role Viewer; Editor for setup pmm (PMM 2: an API key, role Admin). Lines SOURCE TOKEN: one for each PMM",
	},
	Option{
		Name: "pmm-basic-auth-file", Kind: KindSecret, field: func(c *Config) any { return &c.PMMBasicAuth },
		Usage: "file with the user:password of a user of PMM, instead of a token",
	},
	Option{
		Name: "pmm-ca", Kind: KindPath, field: func(c *Config) any { return &c.PMMCA },
		Usage: "trust these authorities (PEM) besides the system's; the certificate of PMM itself is accepted under any name",
	},
	Option{
		Name: "pmm-insecure-skip-verify", Kind: KindBool, Default: "false", field: func(c *Config) any { return &c.PMMInsecureSkipVerify },
		Usage: "accept any certificate of PMM; whoever stands in between can then read the token",
	},
	Option{
		Name: "contact-point", Kind: KindText, Default: "Callgoose SQIBS", field: func(c *Config) any { return &c.ContactPoint },
		Usage: "name of the contact point in PMM that leads here",
	},
	Option{
		Name: "reconcile", Kind: KindEnum, Values: []string{"off", "report", "open", "close", "both"}, Default: "report", field: func(c *Config) any { return &c.Reconcile },
		Usage: "without --pmm-url: off; with it: report what differs between PMM and here, open what is missing, close what is over, or both",
	},
	Option{
		Name: "reconcile-every", Kind: KindDuration, Default: "1m", field: func(c *Config) any { return &c.ReconcileEvery },
		Usage: "how often PMM is asked",
	},
	Option{
		Name: "reconcile-close-after", Kind: KindDuration, Default: "15m", field: func(c *Config) any { return &c.ReconcileCloseAfter },
		Usage: "how long an alert must be gone in PMM before its incident is closed",
	},
	Option{
		Name: "reconcile-limit", Kind: KindPercent, Default: "20%", field: func(c *Config) any { return &c.ReconcileLimit },
		Usage: "largest share of a PMM's open incidents that is closed at once without a person; 3 always are",
	},
	Option{
		Name: "hollow-recovery", Kind: KindEnum, Values: []string{"mark", "hold", "send"}, Default: "mark", field: func(c *Config) any { return &c.HollowRecovery },
		Usage: "a recovery because the data is gone: say so in words, hold it back, or send it like any other",
	},
	Option{
		Name: "hold-hollow", Kind: KindDuration, Default: "2h", field: func(c *Config) any { return &c.HoldHollow },
		Usage: "how long --hollow-recovery hold holds it, for alerts of PMM's own templates and of --hollow-match",
	},
	Option{
		Name: "hollow-match", Kind: KindLabels, Many: true, field: func(c *Config) any { return &c.HollowMatch },
		Usage: "hold the hollow recoveries of alerts with these labels too",
	},
	Option{
		Name: "hold-recovery", Kind: KindDuration, Default: "off", Off: "off", field: func(c *Config) any { return &c.HoldRecovery },
		Usage: "hold every recovery for this long; an alert that fires again meanwhile keeps its incident",
	},
).group("Text",
	Option{
		Name: "short-length", Kind: KindInt, Default: "100", field: func(c *Config) any { return &c.ShortLength },
		Usage: "largest number of characters of the key short, 20 to 255",
	},
	Option{
		Name: "urgency-high", Kind: KindText, Default: "emergency,alert,critical,error", field: func(c *Config) any { return &c.UrgencyHigh },
		Usage: "severities whose urgency is high; that of others is low",
	},
).group("Storage",
	Option{
		Name: "data-dir", Kind: KindPath, Default: "$STATE_DIRECTORY, else /var/lib/pmm-callgoose for root, else $XDG_STATE_HOME/pmm-callgoose", field: func(c *Config) any { return &c.DataDir },
		Usage: "directory that holds everything",
	},
	Option{
		Name: "retention", Kind: KindDuration, Default: "720h", field: func(c *Config) any { return &c.Retention },
		Usage: "how long settled events are kept for replay",
	},
	Option{
		Name: "max-store", Kind: KindSize, Default: "2GiB", field: func(c *Config) any { return &c.MaxStore },
		Usage: "how much may be stored, at least 4 times --max-body; settled events give way first",
	},
	Option{
		Name: "min-free", Kind: KindSize, Default: "256MiB", Off: "off", field: func(c *Config) any { return &c.MinFree },
		Usage: "accept nothing new when less disk space than this is free",
	},
	Option{
		Name: "nats-url", Kind: KindURL, field: func(c *Config) any { return &c.NATSURL },
		Usage: "external NATS JetStream, several separated by commas; embedded when absent",
	},
	Option{
		Name: "nats-url-file", Kind: KindSecret, field: func(c *Config) any { return &c.NATSURLFile },
		Usage: "file with the value of --nats-url, when that holds a password or a token",
	},
	Option{
		Name: "nats-creds-file", Kind: KindSecret, field: func(c *Config) any { return &c.NATSCreds },
		Usage: "file with a NATS user's credentials (.creds), or the seed of an nkey; it stays a file, to be read at each connection",
	},
).group("Operation",
	Option{
		Name: "admin-listen", Kind: KindAddress, Default: "127.0.0.1:4668", Off: "off", field: func(c *Config) any { return &c.AdminListen },
		Usage: "address for operators: the page, JSON API and health checks",
	},
	Option{
		Name: "admin-token-file", Kind: KindSecret, field: func(c *Config) any { return &c.AdminToken },
		Usage: "file with the operators' token; needed beyond loopback",
	},
	Option{
		Name: "admin-tls-cert", Kind: KindPath, field: func(c *Config) any { return &c.AdminTLSCert },
		Usage: "certificate chain (PEM) to serve operators over HTTPS",
	},
	Option{
		Name: "admin-tls-key", Kind: KindPath, field: func(c *Config) any { return &c.AdminTLSKey },
		Usage: "private key (PEM) of --admin-tls-cert",
	},
	Option{
		Name: "alarm-command", Kind: KindText, field: func(c *Config) any { return &c.AlarmCommand },
		Usage: "command run, with the facts as JSON on its input, when Callgoose is down or held for --alarm-after with events waiting, when dead letters appear, when the store is full, and when it is over; keep secrets out of it",
	},
	Option{
		Name: "alarm-webhook", Kind: KindURL, field: func(c *Config) any { return &c.AlarmWebhook },
		Usage: "URL called on the same occasion",
	},
	Option{
		Name: "alarm-webhook-file", Kind: KindSecret, field: func(c *Config) any { return &c.AlarmWebhookFile },
		Usage: "file with the value of --alarm-webhook, whose path or query is usually secret",
	},
	Option{
		Name: "alarm-after", Kind: KindDuration, Default: "5m", field: func(c *Config) any { return &c.AlarmAfter },
		Usage: "how long before the alarm is raised",
	},
	Option{
		Name: "expect-every", Kind: KindExpect, Default: "off", Off: "off", field: func(c *Config) any { return &c.ExpectEvery },
		Usage: "open an incident when a PMM has sent nothing for this long: 30m for each one that ever sent, or pmm=30m,dr=2h; needs a heartbeat rule in PMM",
	},
	Option{
		Name: "ping-url-file", Kind: KindSecret, field: func(c *Config) any { return &c.PingURL },
		Usage: "file with the URL of a heartbeat service, called only while webhooks would be accepted, Callgoose is not away for longer than --alarm-after, and every expected PMM was heard",
	},
	Option{
		Name: "ping-every", Kind: KindDuration, Default: "1m", field: func(c *Config) any { return &c.PingEvery },
		Usage: "how often it is called",
	},
	Option{
		Name: "fallback-webhook-file", Kind: KindSecret, field: func(c *Config) any { return &c.FallbackWebhook },
		Usage: "file with a URL that is told of alerts which wait because Callgoose is away, as JSON with the key text",
	},
	Option{
		Name: "fallback-command", Kind: KindText, field: func(c *Config) any { return &c.FallbackCommand },
		Usage: "command run on the same occasion, with the same JSON on its input; keep secrets out of it",
	},
	Option{
		Name: "fallback-after", Kind: KindDuration, Default: "10m", field: func(c *Config) any { return &c.FallbackAfter },
		Usage: "how long Callgoose must be down or held before that",
	},
	Option{
		Name: "fallback-match", Kind: KindLabels, Default: "severity=critical", field: func(c *Config) any { return &c.FallbackMatch },
		Usage: "labels of the alerts that are told, all of them, separated by commas",
	},
	Option{
		Name: "log-format", Kind: KindEnum, Values: []string{"text", "json"}, Default: "text", field: func(c *Config) any { return &c.LogFormat },
		Usage: "how log lines are written",
	},
	Option{
		Name: "log-level", Kind: KindEnum, Values: []string{"debug", "info", "warn", "error"}, Default: "info", field: func(c *Config) any { return &c.LogLevel },
		Usage: "the least severe line that is logged",
	},
)

type options []Option

func group(name string, opts ...Option) options { return options(nil).group(name, opts...) }

func (all options) group(name string, opts ...Option) options {
	for _, o := range opts {
		o.Group, o.Env, o.Secret = name, EnvName(o.Name), o.Kind == KindSecret
		all = append(all, o)
	}
	return all
}

func find(name string) (Option, bool) {
	i := slices.IndexFunc(table, func(o Option) bool { return o.Name == name })
	if i < 0 {
		return Option{}, false
	}
	return table[i], true
}
