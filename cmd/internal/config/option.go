package config

import (
	"slices"
	"strings"
)

// EnvPrefix begins the name of every environment variable of pmm-callgoose.
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
	KindStorm    Kind = "number/duration"
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

	form  form              // of a secret
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
	return o.Secret && o.plainTwin() == ""
}

// Setting is the name under which Effective shows the option.
func (o Option) Setting() string {
	if o.inline() {
		return o.Credential()
	}
	return o.Name
}

// Options returns the table in documentation order.
func Options() []Option { return slices.Clone(table) }

var table = group("Intake from PMM",
	option("listen", KindAddress, "127.0.0.1:4667", func(c *Config) any { return &c.Listen },
		"address for webhooks; beyond loopback it needs one of the ingest secrets, of at least 8 characters"),
	option("ingest-token-file", KindSecret, "", func(c *Config) any { return &c.IngestToken },
		"file with the bearer token that PMM must send, or with lines NAME TOKEN: then each token is good for the source of its name only").of(tokensForm),
	option("ingest-basic-auth-file", KindSecret, "", func(c *Config) any { return &c.IngestBasicAuth },
		"file with the user:password that PMM must send").of(pairForm),
	option("ingest-hmac-secret-file", KindSecret, "", func(c *Config) any { return &c.IngestHMACSecret },
		"file with the secret of Grafana's HMAC signature (PMM 3.2 and later)"),
	option("ingest-hmac-timestamp-header", KindText, "", func(c *Config) any { return &c.IngestHMACTimestampHeader },
		"header with the signed time, as set in the contact point; with it a captured webhook is of no use to anybody"),
	option("allow-unauthenticated", KindBool, "false", func(c *Config) any { return &c.AllowUnauthenticated },
		"accept webhooks from anyone who can reach --listen"),
	option("tls-cert", KindPath, "", func(c *Config) any { return &c.TLSCert },
		"certificate chain (PEM) to serve webhooks over HTTPS"),
	option("tls-key", KindPath, "", func(c *Config) any { return &c.TLSKey },
		"private key (PEM) of --tls-cert"),
	option("tls-client-ca", KindPath, "", func(c *Config) any { return &c.TLSClientCA },
		"accept only clients with a certificate from these authorities (PEM)"),
	option("max-body", KindSize, "10MiB", func(c *Config) any { return &c.MaxBody },
		"largest webhook body accepted, at most 30MiB"),
	option("max-connections", KindInt, "1024", func(c *Config) any { return &c.MaxConnections },
		"largest number of open connections to --listen; never more than half of the files this process may open"),
).group("Callgoose",
	option("callgoose-url", KindURL, "", func(c *Config) any { return &c.CallgooseURL },
		"endpoint that events are sent to; from= and token= inside it are understood"),
	option("callgoose-token-file", KindSecret, "", func(c *Config) any { return &c.CallgooseToken },
		"file with the API token"),
	option("callgoose-auth", KindEnum, "bearer", func(c *Config) any { return &c.CallgooseAuth },
		"send the token as a header or as token= in the URL; a URL that holds token= means query").oneOf("bearer", "query"),
	option("callgoose-from", KindText, "PerconaPMM", func(c *Config) any { return &c.CallgooseFrom },
		"the from= that selects the API filter"),
	option("callgoose-ca", KindPath, "", func(c *Config) any { return &c.CallgooseCA },
		"trust these authorities (PEM) besides the system's"),
	option("callgoose-filters", KindPath, "", func(c *Config) any { return &c.CallgooseFilters },
		"file with the filters of Callgoose, as filters show prints them: answers that they cannot give are warned of"),
	option("allow-http", KindBool, "false", func(c *Config) any { return &c.AllowHTTP },
		"allow plain http:// URLs beyond loopback; what is sent, secrets included, can then be read on the way"),
).group("Delivery",
	option("incident-by", KindEnum, "alert", func(c *Config) any { return &c.IncidentBy },
		"one incident for each alert, or for each alert name").oneOf("alert", "alertname"),
	option("resend-after", KindDuration, "off", func(c *Config) any { return &c.ResendAfter },
		"send a repeat of a firing alert again after this long").orOff("off"),
	option("on-backlog", KindEnum, "deliver", func(c *Config) any { return &c.OnBacklog },
		"after an outage, deliver or collapse what fired and resolved during it").oneOf("deliver", "collapse"),
	option("late-after", KindDuration, "5m", func(c *Config) any { return &c.LateAfter },
		"an event delivered later than this says so"),
	option("retry-min", KindDuration, "1s", func(c *Config) any { return &c.RetryMin },
		"shortest wait between attempts"),
	option("retry-max", KindDuration, "1m", func(c *Config) any { return &c.RetryMax },
		"longest wait between attempts"),
	option("retry-for", KindDuration, "720h", func(c *Config) any { return &c.RetryFor },
		"a firing event that could not be delivered for this long becomes a dead letter"),
	option("concurrency", KindInt, "16", func(c *Config) any { return &c.Concurrency },
		"number of requests to Callgoose at the same time, 1 to 1024"),
	option("rate", KindRate, "unlimited", func(c *Config) any { return &c.Rate },
		"largest number of events per second sent to Callgoose").orOff("unlimited"),
	option("storm", KindStorm, "off", func(c *Config) any { return &c.Storm },
		"when more alerts of one PMM than this begin within the time (30/1m), open one incident that says so, send the first of each alert name, and the others when it is calm").orOff("off"),
	option("timeout", KindDuration, "15s", func(c *Config) any { return &c.Timeout },
		"longest time for one request to Callgoose"),
).group("What PMM says",
	option("pmm-url", KindPMMs, "", func(c *Config) any { return &c.PMMURL },
		"address of PMM, to ask what fires there; several: SOURCE=URL, as in the URL of its webhook, separated by commas or repeated").many(),
	option("pmm-token-file", KindSecret, "", func(c *Config) any { return &c.PMMToken },
		"file with a service account token of PMM, role Viewer; Editor for setup pmm (PMM 2: an API key, role Admin). Lines SOURCE TOKEN: one for each PMM").of(tokensForm),
	option("pmm-basic-auth-file", KindSecret, "", func(c *Config) any { return &c.PMMBasicAuth },
		"file with the user:password of a user of PMM, instead of a token").of(pairForm),
	option("pmm-ca", KindPath, "", func(c *Config) any { return &c.PMMCA },
		"trust these authorities (PEM) besides the system's; the certificate of PMM itself is accepted under any name"),
	option("pmm-insecure-skip-verify", KindBool, "false", func(c *Config) any { return &c.PMMInsecureSkipVerify },
		"accept any certificate of PMM; an attacker on the way can then read the token"),
	option("contact-point", KindText, "Callgoose SQIBS", func(c *Config) any { return &c.ContactPoint },
		"name of the contact point in PMM that leads here"),
	option("reconcile", KindEnum, "report", func(c *Config) any { return &c.Reconcile },
		"without --pmm-url: off; with it: report what differs between PMM and here, open what is missing, close what is over, or both").oneOf("off", "report", "open", "close", "both"),
	option("reconcile-every", KindDuration, "1m", func(c *Config) any { return &c.ReconcileEvery },
		"how often PMM is asked"),
	option("reconcile-close-after", KindDuration, "15m", func(c *Config) any { return &c.ReconcileCloseAfter },
		"how long an alert must be gone in PMM before its incident is closed"),
	option("reconcile-limit", KindPercent, "20%", func(c *Config) any { return &c.ReconcileLimit },
		"largest share of a PMM's open incidents that is closed at once without a person; 3 always are"),
	option("hollow-recovery", KindEnum, "mark", func(c *Config) any { return &c.HollowRecovery },
		"a recovery that came only because the data is gone: say so in its text, hold it back, or send it like any other").oneOf("mark", "hold", "send"),
	option("hold-hollow", KindDuration, "2h", func(c *Config) any { return &c.HoldHollow },
		"how long --hollow-recovery hold holds it, for alerts of PMM's own templates and of --hollow-match"),
	option("hollow-match", KindLabels, "", func(c *Config) any { return &c.HollowMatch },
		"hold the hollow recoveries of alerts with these labels too").many(),
	option("hold-recovery", KindDuration, "off", func(c *Config) any { return &c.HoldRecovery },
		"hold every recovery for this long; an alert that fires again meanwhile keeps its incident").orOff("off"),
).group("Text",
	option("short-length", KindInt, "100", func(c *Config) any { return &c.ShortLength },
		"largest number of characters of the key short, 20 to 255"),
	option("urgency-high", KindText, "emergency,alert,critical,error", func(c *Config) any { return &c.UrgencyHigh },
		"severities whose urgency is high; that of others is low"),
).group("Storage",
	option("data-dir", KindPath, "$STATE_DIRECTORY, else /var/lib/pmm-callgoose for root, else $XDG_STATE_HOME/pmm-callgoose", func(c *Config) any { return &c.DataDir },
		"directory that holds everything"),
	option("retention", KindDuration, "720h", func(c *Config) any { return &c.Retention },
		"how long settled events are kept for replay"),
	option("max-store", KindSize, "2GiB", func(c *Config) any { return &c.MaxStore },
		"how much may be stored, at least 4 times --max-body; settled events give way first"),
	option("min-free", KindSize, "256MiB", func(c *Config) any { return &c.MinFree },
		"accept nothing new when less disk space than this is free").orOff("off"),
	option("nats-url", KindURL, "", func(c *Config) any { return &c.NATSURL },
		"external NATS JetStream (2.14 or later), several servers separated by commas; embedded when absent").of(serversForm),
	option("nats-url-file", KindSecret, "", func(c *Config) any { return &c.NATSURL },
		"file with the value of --nats-url, when that holds a password or a token").of(serversForm),
	option("nats-creds-file", KindSecret, "", func(c *Config) any { return &c.NATSCreds },
		"file with a NATS user's credentials (.creds), or the seed of an nkey; read again at each connection").of(credsForm),
	option("nats-user-file", KindSecret, "", func(c *Config) any { return &c.NATSUser },
		"file with the user:password, or the token, of NATS, instead of credentials; read again at each connection").of(loginForm),
	option("nats-ca", KindPath, "", func(c *Config) any { return &c.NATSCA },
		"trust these authorities (PEM) of NATS servers instead of the system's; demands TLS, as tls:// does"),
	option("nats-cert", KindPath, "", func(c *Config) any { return &c.NATSCert },
		"client certificate (PEM) for NATS; demands TLS"),
	option("nats-key", KindPath, "", func(c *Config) any { return &c.NATSKey },
		"private key (PEM) of --nats-cert"),
	option("nats-replicas", KindInt, "3", func(c *Config) any { return &c.NATSReplicas },
		"how many NATS servers keep the stream: 1, 3 or 5; a stream that has more keeps them, and 1 loses what waits with that server's disk"),
	option("nats-monitor", KindURL, "", func(c *Config) any { return &c.NATSMonitor },
		"monitoring URLs of the NATS servers (http://n1:8222), separated by commas: they say whether each write is synced").of(monitorForm),
	option("nats-name", KindText, "", func(c *Config) any { return &c.NATSName },
		"name before those of streams and subjects, for several groups of instances on the same servers: a-z, 0-9, -"),
	option("instance", KindText, "", func(c *Config) any { return &c.Instance },
		"name of this instance among those on the same NATS; the name of the machine when absent"),
	option("takeover-after", KindDuration, "13s", func(c *Config) any { return &c.TakeOverAfter },
		"how long the leading instance may say nothing before another one takes over, 6s to 5m; the same on all"),
	option("accept-loss", KindEnum, "", func(c *Config) any { return &c.AcceptLoss },
		"go on, once, although this stream on the NATS servers lost what it held; serve says when that is needed").oneOf("NOTIFICATIONS", "LEDGER", "SNAPSHOTS"),
).group("Operation",
	option("admin-listen", KindAddress, "127.0.0.1:4668", func(c *Config) any { return &c.AdminListen },
		"address for operators: the page, JSON API and health checks").orOff("off"),
	option("admin-token-file", KindSecret, "", func(c *Config) any { return &c.AdminToken },
		"file with the operators' token; needed beyond loopback"),
	option("admin-tls-cert", KindPath, "", func(c *Config) any { return &c.AdminTLSCert },
		"certificate chain (PEM) to serve operators over HTTPS"),
	option("admin-tls-key", KindPath, "", func(c *Config) any { return &c.AdminTLSKey },
		"private key (PEM) of --admin-tls-cert"),
	option("alarm-command", KindText, "", func(c *Config) any { return &c.AlarmCommand },
		"command run, with the facts as JSON on its input, when Callgoose is held, or down with events waiting, or delivery is paused, for --alarm-after; of dead letters, discarded alerts, webhooks that are not accepted, what comparing with PMM found, NATS servers that do not answer, no instance that leads; and when it is over; keep secrets out of it"),
	option("alarm-webhook", KindURL, "", func(c *Config) any { return &c.AlarmWebhook },
		"URL to which the same JSON is posted on the same occasions").of(hookForm),
	option("alarm-webhook-file", KindSecret, "", func(c *Config) any { return &c.AlarmWebhook },
		"file with the value of --alarm-webhook, whose path or query is usually secret").of(hookForm),
	option("alarm-after", KindDuration, "5m", func(c *Config) any { return &c.AlarmAfter },
		"how long before the alarm is raised"),
	option("expect-every", KindExpect, "off", func(c *Config) any { return &c.ExpectEvery },
		"open an incident when a PMM has sent nothing for this long: 30m for each one that ever sent, or pmm=30m,dr=2h; needs a heartbeat rule in PMM").orOff("off"),
	option("ping-url-file", KindSecret, "", func(c *Config) any { return &c.PingURL },
		"file with the URL of a heartbeat service, called only while webhooks would be accepted, Callgoose is not away for longer than --alarm-after, and every expected PMM was heard").of(hookForm),
	option("ping-every", KindDuration, "1m", func(c *Config) any { return &c.PingEvery },
		"how often the URL of --ping-url-file is called"),
	option("fallback-webhook-file", KindSecret, "", func(c *Config) any { return &c.FallbackWebhook },
		"file with a URL that is told of alerts which wait because Callgoose is away, as JSON with the key text").of(hookForm),
	option("fallback-command", KindText, "", func(c *Config) any { return &c.FallbackCommand },
		"command run on the same occasions, with the same JSON on its input; keep secrets out of it"),
	option("fallback-after", KindDuration, "10m", func(c *Config) any { return &c.FallbackAfter },
		"how long Callgoose must be down or held before that"),
	option("fallback-match", KindLabels, "severity=critical", func(c *Config) any { return &c.FallbackMatch },
		"labels of the alerts that are told, all of them, separated by commas"),
	option("log-format", KindEnum, "text", func(c *Config) any { return &c.LogFormat },
		"how log lines are written").oneOf("text", "json"),
	option("log-level", KindEnum, "info", func(c *Config) any { return &c.LogLevel },
		"the least severe line that is logged").oneOf("debug", "info", "warn", "error"),
)

type options []Option

func group(name string, opts ...Option) options { return options(nil).group(name, opts...) }

func (all options) group(name string, opts ...Option) options {
	for _, o := range opts {
		o.Group = name
		all = append(all, o)
	}
	return all
}

func option(name string, kind Kind, byDefault string, field func(*Config) any, usage string) Option {
	return Option{Name: name, Kind: kind, Default: byDefault, Usage: usage, Env: EnvName(name), Secret: kind == KindSecret, field: field}
}

func (o Option) oneOf(values ...string) Option { o.Values = values; return o }
func (o Option) orOff(word string) Option      { o.Off = word; return o }
func (o Option) many() Option                  { o.Many = true; return o }
func (o Option) of(form form) Option           { o.form = form; return o }

func find(name string) (Option, bool) {
	i := slices.IndexFunc(table, func(o Option) bool { return o.Name == name })
	if i < 0 {
		return Option{}, false
	}
	return table[i], true
}
