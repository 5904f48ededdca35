package config

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes a file in the test's own directory.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// from returns what Effective says about one setting.
func from(t *testing.T, c *Config, name string) Setting {
	t.Helper()
	all := c.Effective()
	i := slices.IndexFunc(all, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no setting %s in %v", name, all)
	}
	return all[i]
}

func TestTheTableCoversTheConfig(t *testing.T) {
	c := &Config{}
	bound := make(map[uintptr]string)
	for _, o := range Options() {
		p := reflect.ValueOf(o.field(c)).Pointer()
		if bound[p] != "" && bound[p]+"-file" != o.Name { // the same, in a file
			t.Errorf("%s and %s share a field", bound[p], o.Name)
		}
		bound[p] = o.Name
		if o.Group == "" || o.Usage == "" || o.Env != EnvName(o.Name) || o.Secret != strings.HasSuffix(o.Name, "-file") {
			t.Errorf("row %+v is incomplete", o)
		}
		if o.Default != "" && o.Name != "data-dir" {
			if err := o.set(c, o.Default); err != nil {
				t.Errorf("default of %s: %v", o.Name, err)
			}
		}
	}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && bound[v.Field(i).Addr().Pointer()] == "" {
			t.Errorf("no option sets %s", f.Name)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	c, warnings, err := Load(Input{Environ: []string{"STATE_DIRECTORY=/var/lib/a:/var/lib/b"}})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if c.DataDir != "/var/lib/a" || c.Listen != "127.0.0.1:4667" || c.MaxStore != 2<<30 || c.Rate != 0 ||
		c.ResendAfter != 0 || c.RetryFor != 720*time.Hour || c.MaxConnections != 1024 || c.CallgooseAuth != "bearer" || c.Concurrency != 16 {
		t.Errorf("defaults are %+v", c)
	}
	if len(c.Effective()) != len(Options()) {
		t.Errorf("%d settings for %d options", len(c.Effective()), len(Options()))
	}
}

func TestFlagOverEnvironmentOverFileOverDefault(t *testing.T) {
	file := write(t, "c.yaml", "# sizes\nconcurrency: 3\nallow-http: true\nresend-after: off\nrate: 2.5\n")
	flags := map[string]string{"concurrency": "5"}
	environ := []string{"PMM_CALLGOOSE_CONCURRENCY=4", "PMM_CALLGOOSE_CONFIG=" + file}
	tests := []struct {
		name string
		in   Input
		want int
		from string
	}{
		{"default", Input{}, 16, "default"},
		{"file", Input{ConfigPath: file}, 3, file + ":2"},
		{"file named by the environment", Input{Environ: environ[1:]}, 3, file + ":2"},
		{"environment", Input{Environ: environ}, 4, "environment"},
		{"empty variable is not set", Input{ConfigPath: file, Environ: []string{"PMM_CALLGOOSE_CONCURRENCY="}}, 3, file + ":2"},
		{"flag", Input{Flags: flags, Environ: environ}, 5, "flag"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _, err := Load(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := from(t, c, "concurrency"); c.Concurrency != tt.want || got.From != tt.from {
				t.Errorf("concurrency is %d from %s, want %d from %s", c.Concurrency, got.From, tt.want, tt.from)
			}
		})
	}
	c, _, err := Load(Input{ConfigPath: file})
	if err != nil || !c.AllowHTTP || c.Rate != 2.5 || c.ResendAfter != 0 {
		t.Errorf("values of the file: %+v, %v", c, err)
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	file := write(t, "c.yaml", `listen: 0.0.0.0:4667
listne: x
callgoose-token: hunter2
retry-min: 2m
retry_max: 1m
concurrency: [1, 2]
timeout:
timeout: 3s
max-body: 10MB
log-level: verbose
`)
	c, warnings, err := Load(Input{
		ConfigPath: file,
		Serve:      true,
		Flags:      map[string]string{"tls-cert": "c.pem", "nope": "1"},
		Environ:    []string{"PMM_CALLGOOSE_RATE=fast", "PMM_CALLGOOSE_LISTENN=x", "PMM_CALLGOOSE_SERVICE_PORT_HTTP=1", "PMM_CALLGOOSE_ADMIN_URL=x"},
		KnownEnv:   []string{"PMM_CALLGOOSE_ADMIN_URL"},
	})
	want := []string{
		"--nope: is not a flag",
		"c.yaml:2: listne: unknown key; did you mean listen?",
		"c.yaml:3: callgoose-token: a secret does not belong here; put it in a file of its own and name that with callgoose-token-file",
		"c.yaml:5: retry_max: unknown key; did you mean retry-max?",
		"c.yaml:6: concurrency: takes one number, not a list",
		"c.yaml:7: timeout: has no value",
		"c.yaml:8: timeout: is set twice, first on line 7",
		`c.yaml:9: max-body: "10MB" has an unknown unit`,
		"PMM_CALLGOOSE_RATE: \"fast\" is not a number",
		`c.yaml:10: log-level: "verbose" is not one of debug, info, warn, error`,
		`c.yaml:1: listen: "0.0.0.0:4667" can be reached from other machines`,
		"--tls-cert: needs tls-key",
		"c.yaml:4: retry-min: is longer than retry-max",
		"/c.pem cannot be read: no such file",
		"callgoose-url: is needed",
		"callgoose-token-file: is needed",
	}
	ps, ok := errors.AsType[Problems](err)
	if !ok {
		t.Fatalf("the error is %T", err)
	}
	text := ps.Error()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("missing: %s", w)
		}
	}
	if len(ps) != len(want) || strings.Count(text, "\n") != len(want)-1 || strings.Contains(text, "hunter2") {
		t.Errorf("problems are\n%s", text)
	}
	if len(warnings) != 1 || warnings[0] != "PMM_CALLGOOSE_LISTENN: is not a variable of pmm-callgoose and is ignored; did you mean PMM_CALLGOOSE_LISTEN?" {
		t.Errorf("warnings are %q", warnings)
	}
	if c.MaxBody != 10<<20 || from(t, c, "max-body").Value != "(invalid)" {
		t.Errorf("a bad value left %d, shown as %v", c.MaxBody, from(t, c, "max-body"))
	}
}

func TestOptionsThatContradictEachOther(t *testing.T) {
	token := write(t, "token", "t0ken-of-the-intake\n")
	short := write(t, "short", "t0ken-7\n")
	tests := []struct {
		name  string
		flags map[string]string
		want  string // "" = fine
	}{
		{"loopback needs no secret", map[string]string{"listen": "[::1]:0", "admin-listen": "localhost:0"}, ""},
		{"mapped loopback", map[string]string{"listen": "[::ffff:127.0.0.1]:1"}, ""},
		{"every interface", map[string]string{"listen": ":4667"}, "listen: "},
		{"a name may be anything", map[string]string{"listen": "pmm-callgoose:4667"}, "listen: "},
		{"with a token", map[string]string{"listen": ":4667", "ingest-token-file": token}, ""},
		{"allowed", map[string]string{"listen": ":4667", "allow-unauthenticated": "true"}, ""},
		{"with a token that can be guessed", map[string]string{"listen": ":4667", "ingest-token-file": short}, "ingest-token-file: has fewer than 8 characters"},
		{"with a password that can be guessed", map[string]string{"listen": ":4667", "ingest-basic-auth-file": write(t, "b", "a-long-user:hunter2")}, "ingest-basic-auth-file: has fewer than 8 characters"},
		{"one token of several can be guessed", map[string]string{"listen": ":4667", "ingest-token-file": write(t, "l", "pmm a-long-hunter\na-long-name shrt\n")}, "ingest-token-file: has fewer than 8 characters"},
		{"a short token on loopback", map[string]string{"ingest-token-file": short, "admin-token-file": short}, ""},
		{"admin with a token that can be guessed", map[string]string{"admin-listen": ":4668", "admin-token-file": short}, "admin-token-file: has fewer than 8 characters"},
		{"an unreadable token is one problem, not two", map[string]string{"listen": ":4667", "ingest-token-file": token + "x"}, "ingest-token-file: " + token + "x cannot be read: no such file or directory"},
		{"admin needs its own token", map[string]string{"admin-listen": ":4668", "allow-unauthenticated": "true"}, "admin-listen: "},
		{"admin with a token", map[string]string{"admin-listen": ":4668", "admin-token-file": token}, ""},
		{"admin off", map[string]string{"admin-listen": "off"}, ""},
		{"one address twice", map[string]string{"admin-listen": "127.0.0.1:4667"}, "admin-listen: "},
		{"listen cannot be off", map[string]string{"listen": "off"}, "listen: "},
		{"no such port", map[string]string{"listen": "127.0.0.1:70000"}, "listen: "},
		{"key without certificate", map[string]string{"tls-key": "k"}, "tls-key: needs tls-cert"},
		{"certificate without a key for operators", map[string]string{"admin-tls-cert": "c"}, "admin-tls-cert: needs admin-tls-key"},
		{"client authorities alone", map[string]string{"tls-client-ca": "ca"}, "tls-client-ca: "},
		{"all of TLS", map[string]string{"tls-cert": "c", "tls-key": "k", "tls-client-ca": "ca"}, ""},
		{"no workers", map[string]string{"concurrency": "0"}, "concurrency: "},
		{"too many workers", map[string]string{"concurrency": "1025"}, "concurrency: "},
		{"body beyond what NATS takes", map[string]string{"max-body": "64MiB"}, "max-body: "},
		{"a store with room for three bodies", map[string]string{"max-body": "10MiB", "max-store": "39MiB"}, "max-store: is less than 4 times max-body"},
		{"a store with room for four bodies", map[string]string{"max-body": "10MiB", "max-store": "40MiB"}, ""},
		{"no connections", map[string]string{"max-connections": "0"}, "max-connections: "},
		{"timestamp without HMAC", map[string]string{"ingest-hmac-timestamp-header": "X-T"}, "ingest-hmac-timestamp-header: needs"},
		{"not a header", map[string]string{"ingest-hmac-timestamp-header": "X T", "ingest-hmac-secret-file": token}, "ingest-hmac-timestamp-header: "},
		{"basic auth without a colon", map[string]string{"ingest-basic-auth-file": token}, "ingest-basic-auth-file: the secret is not user:password"},
		{"https", map[string]string{"callgoose-url": "https://x.callgoose.com/v1/process"}, ""},
		{"plain http", map[string]string{"callgoose-url": "http://x.callgoose.com/v1/process"}, "callgoose-url: is plain http"},
		{"plain http allowed", map[string]string{"callgoose-url": "http://x.callgoose.com/v1/process", "allow-http": "yes"}, ""},
		{"plain http to loopback", map[string]string{"callgoose-url": "http://127.0.0.1:9/v1/process"}, ""},
		{"another scheme", map[string]string{"callgoose-url": "ftp://x/"}, "callgoose-url: is not a URL"},
		{"a user in the URL", map[string]string{"callgoose-url": "https://u:hunter2@x/"}, "callgoose-url: holds a user name"},
		{"NATS cluster", map[string]string{"nats-url": "nats://u:p@a:4222, tls://b:4222"}, ""},
		{"not NATS", map[string]string{"nats-url": "nats://a:4222,https://hunter2@b"}, "nats-url: is not a URL"},
		{"alarm webhook without a scheme", map[string]string{"alarm-webhook": "hooks.example/hunter2"}, "alarm-webhook: is not a URL"},
		{"alarm webhook over plain http", map[string]string{"alarm-webhook": "http://hooks.example/hunter2"}, "alarm-webhook: is plain http"},
		{"alarm webhook over plain http, allowed", map[string]string{"alarm-webhook": "http://hooks.example/hunter2", "allow-http": "true"}, ""},
		{"alarm webhook in a file", map[string]string{"alarm-webhook-file": write(t, "a", "https://hooks.example/hunter2\n")}, ""},
		{"alarm webhook in a file, over plain http", map[string]string{"alarm-webhook-file": write(t, "a", "http://hooks.example/hunter2\n")}, "alarm-webhook-file: is plain http"},
		{"no URL in the file", map[string]string{"alarm-webhook-file": write(t, "a", "hooks.example/hunter2\n")}, "alarm-webhook-file: is not a URL"},
		{"alarm webhook twice", map[string]string{"alarm-webhook": "https://x/y", "alarm-webhook-file": write(t, "a", "https://x/hunter2\n")}, "alarm-webhook: and alarm-webhook-file are both set"},
		{"a heartbeat over plain http", map[string]string{"ping-url-file": write(t, "p", "http://ping.example/hunter2\n")}, "ping-url-file: is plain http"},
		{"no heartbeat URL in the file", map[string]string{"ping-url-file": write(t, "p", "ping.example/hunter2\n")}, "ping-url-file: is not a URL"},
		{"another way out", map[string]string{"fallback-webhook-file": write(t, "f", "https://chat.example/hunter2\n"), "fallback-match": "severity=critical, env=prod"}, ""},
		{"another way out over plain http", map[string]string{"fallback-webhook-file": write(t, "f", "http://chat.example/hunter2\n")}, "fallback-webhook-file: is plain http"},
		{"a time for no other way", map[string]string{"fallback-after": "1m"}, "fallback-after: needs fallback-webhook-file or fallback-command"},
		{"no label to match", map[string]string{"fallback-command": "true", "fallback-match": "critical"}, `fallback-match: "critical" is not of the form label=value`},
		{"NATS in a file", map[string]string{"nats-url-file": write(t, "n", "tls://u:hunter2@a:4222,tls://b\n")}, ""},
		{"not NATS in a file", map[string]string{"nats-url-file": write(t, "n", "https://u:hunter2@a\n")}, "nats-url-file: is not a URL"},
		{"several instances", map[string]string{"nats-url": "nats://a", "nats-name": "eu-1", "nats-replicas": "3", "instance": "a", "takeover-after": "6s"}, ""},
		{"several instances without NATS", map[string]string{"instance": "a"}, "instance: needs nats-url"},
		{"a name that no stream has", map[string]string{"nats-url": "nats://a", "nats-name": "EU.1"}, "nats-name: "},
		{"two replicas", map[string]string{"nats-url": "nats://a", "nats-replicas": "2"}, "nats-replicas: 2 is not"},
		{"a take-over within an election", map[string]string{"nats-url": "nats://a", "takeover-after": "2s"}, "takeover-after: is not between"},
		{"empty where a value is needed", map[string]string{"log-format": ""}, "log-format: has no value"},
		{"empty where none is", map[string]string{"nats-url": "", "tls-cert": ""}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Load(Input{Flags: tt.flags, Environ: []string{"HOME=/home/x"}})
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want == "":
			case err == nil:
				t.Errorf("no problem, want %q", tt.want)
			case !strings.HasPrefix(err.Error(), "--"+tt.want), strings.Contains(err.Error(), "\n"), strings.Contains(err.Error(), "hunter2"):
				t.Errorf("problems are %q, want one: %q", err, tt.want)
			}
		})
	}
}

func TestACommandReadsOnlyWhatItNeeds(t *testing.T) {
	c, _, err := Load(Input{
		Only:  []string{"data-dir"},
		Flags: map[string]string{"data-dir": "/d", "callgoose-token-file": "/nowhere", "listen": ":1"},
	})
	if err != nil || c.DataDir != "/d" || c.CallgooseToken.IsSet() || len(c.Secrets()) != 0 {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestDataDirectory(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		uid  int
		want string
	}{
		{"systemd", map[string]string{"STATE_DIRECTORY": "/var/lib/x:/y", "HOME": "/h"}, 0, "/var/lib/x"},
		{"root", map[string]string{"HOME": "/root"}, 0, "/var/lib/pmm-callgoose"},
		{"XDG", map[string]string{"XDG_STATE_HOME": "/s", "HOME": "/h"}, 1, "/s/pmm-callgoose"},
		{"relative XDG does not count", map[string]string{"XDG_STATE_HOME": "s", "HOME": "/h"}, 1, "/h/.local/state/pmm-callgoose"},
		{"home", map[string]string{"HOME": "/h"}, 1, "/h/.local/state/pmm-callgoose"},
		{"nothing", nil, 1, ""},
	}
	for _, tt := range tests {
		if got := dataDir(tt.env, tt.uid); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFilesThatAreNoConfiguration(t *testing.T) {
	tests := []struct {
		name, text, want string // want "" = no problem
	}{
		{"nothing", "", ""},
		{"comments only", "# nothing yet\n---\n", ""},
		{"syntax", "listen: a\n\tb: c\n", "f:"},
		{"a list", "- listen\n", "f:1: lines of the form key: value are expected"},
		{"a word", "listen", "f:1: lines of the form"},
		{"two documents", "rate: 1\n---\nrate: 2\n", "f:"},
		{"a section", "retry:\n  min: 1s\n", "f:1: retry: unknown key"},
		{"an alias", "tls-cert: &a x\ntls-key: *a\n", "f:2: tls-key: takes one path, not a list, a mapping or an alias"},
		{"a key over two lines", "\"a\\nb\": 1\n", `f:1: "a\nb": unknown key`},
		{"a strange key", "? [a]\n: 1\n", "f:1: a key is a single word"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, ps := parseFile("f", []byte(tt.text))
			if tt.want == "" && len(ps) == 0 || len(ps) == 1 && tt.want != "" && strings.HasPrefix(ps[0].String(), tt.want) {
				return
			}
			t.Errorf("problems are %v, want %q", ps, tt.want)
		})
	}
	if _, _, err := Load(Input{ConfigPath: "/nowhere.yaml"}); err == nil || err.Error() != "/nowhere.yaml: cannot be read: no such file or directory" {
		t.Error(err)
	}
}

func FuzzFile(f *testing.F) {
	for _, s := range []string{"listen: :1\nrate: 2\n", "a: [b, {c: d}]\n", "x: &x 1\ny: *x\n<<: {a: b}\n", "---\n...\n---\n", "\"\\u0000\": !!binary aGk=\n", "timeout: 1d1h\ntimeout: 99999999d\nmax-body: 1e9TiB\n", "listen: ~\n? a\n: b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		values, problems := parseFile("f", data)
		for _, p := range problems {
			if strings.ContainsAny(p.String(), "\n\r") || !strings.HasPrefix(p.Where, "f") {
				t.Errorf("not one line with its place: %q", p)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			o, ok := find(name)
			if !ok {
				t.Fatalf("unknown key %q was accepted", name)
			}
			if o.Secret {
				continue
			}
			c := &Config{}
			if err := o.set(c, values[name].text); err != nil && strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("not one line: %q", err)
			}
			if c.Timeout < 0 || c.MaxBody < 0 || c.Rate < 0 {
				t.Errorf("%s: %q gives less than nothing", name, values[name].text)
			}
		}
	})
}

// The service tells others of them, who stand in another directory.
func TestPathsAreAbsoluteWhereverTheyCameFrom(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{"token": "t0ken-of-the-test", "c.yaml": "callgoose-ca: ca.pem\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, _, err := Load(Input{
		Flags: map[string]string{"data-dir": "d", "callgoose-token-file": "token"}, Environ: []string{"PMM_CALLGOOSE_TLS_CLIENT_CA=x/../ca.pem"},
		ConfigPath: "c.yaml", Only: []string{"data-dir", "callgoose-token-file", "callgoose-ca", "tls-client-ca"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.DataDir: "d", from(t, c, "data-dir").Value: "d", c.CallgooseToken.File(): "token", from(t, c, "callgoose-token").File: "token",
		c.CallgooseCA: "ca.pem", c.TLSClientCA: "ca.pem",
	} {
		if got != filepath.Join(dir, want) {
			t.Errorf("%s is not %s in %s", got, want, dir)
		}
	}
}
