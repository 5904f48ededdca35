package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"time"
)

// Config is what the process runs with. Each field is the option of the same
// name; the table in option.go says what it means and what its default is.
// A Secret that is not set is nil, and reveals "".
type Config struct {
	Listen                    string
	IngestToken               *Secret
	IngestBasicAuth           *Secret // user:password
	IngestHMACSecret          *Secret
	IngestHMACTimestampHeader string
	AllowUnauthenticated      bool
	TLSCert                   string
	TLSKey                    string
	TLSClientCA               string
	MaxBody                   int64
	MaxConnections            int

	CallgooseURL     string // without token= and from=, which moved to the fields below
	CallgooseToken   *Secret
	CallgooseAuth    string // bearer, query
	CallgooseFrom    string
	CallgooseCA      string
	CallgooseFilters string
	AllowHTTP        bool

	PMMURL                PMMs
	PMMToken              *Secret // one, or lines SOURCE TOKEN
	PMMBasicAuth          *Secret // user:password
	PMMCA                 string
	PMMInsecureSkipVerify bool
	ContactPoint          string
	Reconcile             string // off, report, open, close, both; nothing without PMMURL
	ReconcileEvery        time.Duration
	ReconcileCloseAfter   time.Duration
	ReconcileLimit        float64 // share of the open episodes, 0 to 1

	HollowRecovery string            // mark, hold, send
	HoldHollow     time.Duration     // with hold
	HollowMatch    map[string]string // labels
	HoldRecovery   time.Duration     // 0 = not
	ShortLength    int               // characters
	UrgencyHigh    []string          // severities

	IncidentBy  string        // alert, alertname
	ResendAfter time.Duration // 0 = never
	OnBacklog   string        // deliver, collapse
	LateAfter   time.Duration
	RetryMin    time.Duration
	RetryMax    time.Duration
	RetryFor    time.Duration
	Concurrency int
	Rate        float64 // events a second, 0 = unlimited
	Storm       Storm
	Timeout     time.Duration

	DataDir      string
	Retention    time.Duration
	MaxStore     int64
	MinFree      int64
	NATSURL      *Secret // of the external JetStream, several separated by commas; not set = embedded
	NATSCreds    *Secret // the text of a .creds file, or the seed of an nkey
	NATSUser     *Secret // user:password, or a token
	NATSCA       string
	NATSCert     string
	NATSKey      string
	NATSMonitor  *Secret // URLs, several separated by commas
	NATSReplicas int
	// Of several instances on one NATS.
	NATSName      string
	Instance      string        // see InstanceName
	TakeOverAfter time.Duration // 0 = 13s
	AcceptLoss    string        // the name of a stream, empty = none

	AdminListen     string // empty = none
	AdminToken      *Secret
	AdminTLSCert    string
	AdminTLSKey     string
	AlarmCommand    string
	AlarmWebhook    *Secret // a URL
	AlarmAfter      time.Duration
	ExpectEvery     Expect
	PingURL         *Secret
	PingEvery       time.Duration
	FallbackWebhook *Secret
	FallbackCommand string
	FallbackAfter   time.Duration
	FallbackMatch   map[string]string // labels
	LogFormat       string            // text, json
	LogLevel        slog.Level

	settings map[string]*Setting // by option name; values fit to be printed
}

// Setting is one row of the effective configuration, with nothing secret in it.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// From is flag, environment, credential, callgoose-url, default, or the
	// place in the file as path:line.
	From string `json:"from"`
	// File is where a secret was read from.
	File string `json:"file,omitempty"`
}

// Effective lists the settings in table order.
func (c *Config) Effective() []Setting {
	var out []Setting
	for _, o := range table {
		if s := c.settings[o.Name]; s != nil {
			out = append(out, *s)
		}
	}
	return out
}

// Named tells whether the value of an option was given: by flag, environment or file.
func (c *Config) Named(option string) bool {
	s := c.settings[option]
	return s != nil && s.From != fromDefault
}

// Change is a setting with another value than a running service has.
type Change struct {
	Name string `json:"name"`
	Was  string `json:"was"`  // as in Setting.Value
	Now  string `json:"now"`  // the same where only what is hidden differs
	From string `json:"from"` // where the new value stands
}

// Changes lists the settings that differ in next, in table order. What a secret file
// holds is not compared: Secret.Reload does that.
func (c *Config) Changes(next *Config) (list []Change) {
	for _, o := range table {
		was, now := c.settings[o.Name], next.settings[o.Name]
		if was == nil || now == nil {
			continue
		}
		hidden := false
		if a, ok := o.field(c).(**Secret); ok && was.Value != "" {
			b := o.field(next).(**Secret)
			hidden = (*a).File() == "" && (*b).File() == "" && (*a).Reveal() != (*b).Reveal()
		}
		if was.Value != now.Value || was.File != now.File || hidden {
			list = append(list, Change{o.Setting(), was.Value, now.Value, now.From})
		}
	}
	return list
}

// Secrets lists every secret that is set, for a reload of all of them.
func (c *Config) Secrets() (list []*Secret) {
	for _, o := range table {
		if s, ok := o.field(c).(**Secret); ok && (*s).IsSet() && !slices.Contains(list, *s) {
			list = append(list, *s)
		}
	}
	return list
}

// InstanceName is what operators call this instance: by default the name of the machine.
func (c *Config) InstanceName() string {
	name, _ := os.Hostname()
	return cmp.Or(c.Instance, name, "unnamed")
}

// NATS is the address of the external JetStream, with what it holds of secrets;
// empty = embedded.
func (c *Config) NATS() string { return c.NATSURL.Reveal() }

// ownSettings may differ between instances on one NATS, as addresses, paths and secrets may.
var ownSettings = []string{"accept-loss", "instance", "log-format", "log-level"}

// Digests is a short hash of each setting that must be the same on all instances on one
// NATS, by its name: none can be read out of it. Of --callgoose-url only what is no secret
// counts.
func (c *Config) Digests() map[string]string {
	out := map[string]string{}
	for _, o := range table {
		var value any
		switch {
		case o.Name == "callgoose-url":
			value = hideURL(c.CallgooseURL)
		case slices.Contains([]Kind{KindAddress, KindPath, KindURL, KindPMMs, KindSecret}, o.Kind), slices.Contains(ownSettings, o.Name):
			continue
		default:
			value = reflect.ValueOf(o.field(c)).Elem().Interface()
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s=%v", o.Name, value))
		out[o.Name] = hex.EncodeToString(sum[:4])
	}
	return out
}
