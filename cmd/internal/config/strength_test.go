package config

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// load loads with flags only.
func load(t *testing.T, flags map[string]string) (*Config, string, error) {
	t.Helper()
	c, warnings, err := Load(Input{Flags: flags, Environ: []string{"HOME=/h"}})
	return c, fmt.Sprint(warnings), err
}

func TestASecretThatWasNotMeantSoIsRefusedWithTheReason(t *testing.T) {
	for _, tt := range []struct {
		name, text, want string // want "" = it is taken
	}{
		{"plain", "hunter2-hunter2", ""},
		{"one line break", "hunter2-hunter2\n", ""},
		{"one line break of Windows", "hunter2-hunter2\r\n", ""},
		{"signs", `hunter2/+=~"'x`, ""},
		{"a quote on one side", `"hunter2`, ""},
		{"byte order mark", "\ufeffhunter2\n", "byte order mark"},
		{"UTF-16", "\xff\xfeh\x00u\x00n\x00t\x00e\x00r\x002\x00", "byte order mark"},
		{"a blank before it", " hunter2\n", "blank"},
		{"a blank behind it", "hunter2 \n", "blank"},
		{"a tab behind it", "hunter2\t", "blank"},
		{"two line breaks", "hunter2\n\n", "empty line"},
		{"double quotes", "\"hunter2\"\n", "quotes"},
		{"single quotes", "'hunter2'", "quotes"},
		{"the scheme in front", "Bearer hunter2\n", `"Bearer "`},
		{"the scheme in front, in small letters", "bearer hunter2\n", `"Bearer "`},
		{"letters with accents", "hünter2", "ASCII"},
		{"a typographic quote", "hunter2’s", "ASCII"},
		{"a zero byte", "hunter2\x00", "control character"},
		{"our placeholder", "A-LONG-RANDOM-WORD\n", "placeholder"},
		{"our placeholder in small letters", "your-api-token", "placeholder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, option := range []string{"callgoose-token-file", "ingest-token-file", "ingest-hmac-secret-file", "admin-token-file"} {
				_, warnings, err := load(t, map[string]string{option: write(t, "s", tt.text)})
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("%s: %v", option, err)
				case tt.want == "":
				case err == nil || !strings.Contains(err.Error(), tt.want) && !strings.Contains(err.Error(), "line 1"):
					t.Errorf("%s: %v, want %q", option, err, tt.want)
				case strings.Contains(err.Error()+warnings, "unter2"):
					t.Errorf("%s: the secret is in %s", option, err)
				}
			}
			if _, _, err := load(t, map[string]string{"ingest-basic-auth-file": write(t, "s", "pmm:"+tt.text)}); (err != nil) != (tt.want != "") {
				t.Errorf("as a password: %v", err)
			}
			_, _, err := Load(Input{Environ: []string{"HOME=/h", "PMM_CALLGOOSE_CALLGOOSE_TOKEN=" + tt.text}})
			if (err != nil) != (tt.want != "") {
				t.Errorf("as a variable: %v", err)
			}
		})
	}
}

// What people copy from our files and forget to replace must not become a secret.
func TestEveryPlaceholderOfOurFilesIsRefused(t *testing.T) {
	word, found := regexp.MustCompile(`\b(?:A|YOUR)(?:-[A-Z]+)*-(?:WORD|TOKEN|SECRET|PASSWORD)\b`), 0
	err := filepath.WalkDir(deployDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, w := range word.FindAllString(string(b), -1) {
			if found++; !slices.Contains(placeholders, w) {
				t.Errorf("%s has the placeholder %s, which would be taken for a secret", path, w)
			}
		}
		return err
	})
	if err != nil || found < 4 {
		t.Errorf("%d placeholders, %v", found, err)
	}
}

func TestTokensOfSeveralSources(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"two sources", "pmm hunter2-one\ndr hunter2-two\n", ""},
		{"one source", "pmm hunter2-one", ""},
		{"lines of Windows", "pmm hunter2-one\r\ndr hunter2-two\r\n", ""},
		{"two tokens of one source", "pmm hunter2-one\npmm hunter2-two\n", ""},
		{"a token without a name", "pmm hunter2-one\nhunter2-two\n", "line 2 is not of the form NAME TOKEN"},
		{"no source's name", "PMM hunter2-one\n", "line 1 is not of the form"},
		{"an empty line", "pmm hunter2-one\n\ndr hunter2-two\n", "line 2 is not of the form"},
		{"three words", "pmm hunter2 one\n", "line 1 holds a blank"},
		{"two blanks", "pmm  hunter2-one\n", "line 1 holds a blank"},
		{"a quoted token", "pmm \"hunter2\"\n", "line 1: the secret stands in quotes"},
		{"a placeholder", "pmm hunter2-one\ndr A-LONG-RANDOM-WORD\n", "line 2: the secret is the placeholder"},
	} {
		c, _, err := load(t, map[string]string{"ingest-token-file": write(t, "s", tt.text)})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		case tt.want == "":
			if out := c.Redactor().String("401 for hunter2-one from pmm"); out != "401 for [redacted] from pmm" {
				t.Errorf("%s: the log says %s", tt.name, out)
			}
		}
	}
}

func TestWeakProtectionIsAWarning(t *testing.T) {
	short, long := write(t, "s", "fifteen-letters\n"), write(t, "l", "sixteen--letters\n")
	cert := map[string]string{"tls-cert": "c", "tls-key": "k"}
	for _, tt := range []struct {
		name  string
		flags map[string]string
		want  []string
	}{
		{"loopback", map[string]string{"ingest-token-file": short}, nil},
		{"a short token and no TLS", map[string]string{"listen": ":1", "ingest-token-file": short}, []string{"fewer than 16 characters", "without TLS"}},
		{"a long token and no TLS", map[string]string{"listen": ":1", "ingest-token-file": long}, []string{"without TLS"}},
		{"a long token and TLS", map[string]string{"listen": ":1", "ingest-token-file": long, "tls-cert": cert["tls-cert"], "tls-key": cert["tls-key"]}, nil},
		{"a signature needs no TLS", map[string]string{"listen": ":1", "ingest-hmac-secret-file": long}, nil},
		{"operators", map[string]string{"admin-listen": ":1", "admin-token-file": long}, []string{"without TLS"}},
		{"a password for NATS in the clear", map[string]string{"nats-url-file": write(t, "n", "nats://u:p@a:4222")}, []string{"can be read on the way"}},
		{"a password for NATS over TLS", map[string]string{"nats-url-file": write(t, "n", "tls://u:p@a:4222")}, nil},
		{"a password for NATS as a flag", map[string]string{"nats-url": "tls://u:p@a:4222"}, []string{"name that with nats-url-file"}},
		{"NATS without a password", map[string]string{"nats-url": "tls://a:4222, tls://b:4222"}, nil},
		{"a hook as a flag", map[string]string{"alarm-webhook": "https://hooks.example/T0/B0"}, []string{"name that with alarm-webhook-file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings, err := Load(Input{Flags: tt.flags, Environ: []string{"HOME=/h"}})
			if err != nil || len(warnings) != len(tt.want) {
				t.Fatalf("%v, %q", err, warnings)
			}
			for i, w := range tt.want {
				if !strings.Contains(string(warnings[i]), w) {
					t.Errorf("%q, want %q", warnings[i], w)
				}
			}
		})
	}
}

func TestAReloadIsHeldToTheSame(t *testing.T) {
	path := write(t, "s", "a-long-random-token-1\n")
	c, _, err := load(t, map[string]string{"listen": ":1", "ingest-token-file": path})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"short", "'a-long-random-token-2'", "\ufeffa-long-random-token-2"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if changed, err := c.IngestToken.Reload(); changed || err == nil || c.IngestToken.Reveal() != "a-long-random-token-1" {
			t.Errorf("%q: changed %v, %v", bad, changed, err)
		}
	}
}

func TestURLsFromFiles(t *testing.T) {
	hook := write(t, "h", "https://hooks.example/services/T000/hook-path\n")
	c, warnings, err := load(t, map[string]string{"alarm-webhook-file": hook, "nats-url-file": write(t, "n", "tls://u:nats-pass@a:4222\n")})
	if err != nil || warnings != "[]" {
		t.Fatal(err, warnings)
	}
	if c.AlarmWebhook.Reveal() != "https://hooks.example/services/T000/hook-path" || c.NATS() != "tls://u:nats-pass@a:4222" {
		t.Errorf("%s, %s", c.AlarmWebhook.Reveal(), c.NATS())
	}
	if s := from(t, c, "alarm-webhook-file"); s.Value != "[redacted]" || s.File != hook {
		t.Errorf("shown as %+v", s)
	}
	out := c.Redactor().String("dial a: nats-pass was refused; POST /services/T000/hook-path: 404")
	if strings.Contains(out, "nats-pass") || strings.Contains(out, "hook-path") {
		t.Error(out)
	}
	if err := os.WriteFile(hook, []byte("https://hooks.example/new-path"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.AlarmWebhook.Reload(); !changed || err != nil || c.AlarmWebhook.Reveal() != "https://hooks.example/new-path" {
		t.Errorf("after a reload: %v, %v, %s", changed, err, c.AlarmWebhook.Reveal())
	}
}

func TestCredentialsOfNATS(t *testing.T) {
	seed := "SUA" + strings.Repeat("M3KQ7", 11)
	token := "eyJ0eXAi" + strings.Repeat("aBc-9_", 20) + ".sig-nature"
	creds := "-----BEGIN NATS USER JWT-----\n" + token + "\n------END NATS USER JWT------\n\n" +
		"************************* IMPORTANT *************************\n-----BEGIN USER NKEY SEED-----\n" + seed +
		"\n------END USER NKEY SEED------\n\n*************************************************************\n"
	for name, text := range map[string]string{"a .creds file": creds, "a seed": seed + "\n"} {
		path := write(t, "n", text)
		c, warnings, err := load(t, map[string]string{"nats-url": "tls://a:4222", "nats-creds-file": path})
		if err != nil || warnings != "[]" || c.NATSCreds.File() != path {
			t.Fatalf("%s: %v, %s, file %s", name, err, warnings, c.NATSCreds.File())
		}
		if out := c.Redactor().String("NATS said " + seed + " of USER"); out != "NATS said [redacted] of USER" {
			t.Errorf("%s: the log says %s", name, out)
		}
	}
	for name, tt := range map[string]struct {
		text, url, want string
	}{
		"a password":   {"hunter2-hunter2", "tls://a", "neither a NATS user's credentials nor the seed"},
		"half a seed":  {seed[:40], "tls://a", "neither"},
		"no server":    {seed, "", "needs nats-url"},
		"an empty one": {"", "tls://a", "is empty"},
	} {
		_, _, err := load(t, map[string]string{"nats-url": tt.url, "nats-creds-file": write(t, "n", tt.text)})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	c, warnings, err := Load(Input{Environ: []string{"HOME=/h", "PMM_CALLGOOSE_NATS_URL=tls://a", "PMM_CALLGOOSE_NATS_CREDS=" + creds}})
	if err != nil || len(warnings) > 0 || c.NATSCreds.Reveal() != strings.TrimSuffix(creds, "\n") {
		t.Errorf("as a variable: %v, %s", err, warnings)
	}
	if out := c.Redactor().String("NATS said " + seed + " and " + token); out != "NATS said [redacted] and [redacted]" {
		t.Errorf("as a variable: the log says %s", out)
	}
}

func TestOneWayToLogInToNATS(t *testing.T) {
	seed := write(t, "seed", "SUA"+strings.Repeat("M3KQ7", 11))
	user, word := write(t, "user", "svc:hunter2-hunter2"), write(t, "token", "hunter2-hunter2")
	for name, tt := range map[string]struct {
		set  map[string]string
		want string // in the error; "" = none
	}{
		"user and password":               {map[string]string{"nats-user-file": user}, ""},
		"token":                           {map[string]string{"nats-user-file": word}, ""},
		"user without a password":         {map[string]string{"nats-user-file": write(t, "half", "svc:")}, "not user:password"},
		"a quoted token":                  {map[string]string{"nats-user-file": write(t, "quoted", `"hunter2-hunter2"`)}, "quotes"},
		"user and credentials":            {map[string]string{"nats-user-file": user, "nats-creds-file": seed}, "two ways to log in: nats-creds-file and nats-user-file"},
		"user, and another in the URL":    {map[string]string{"nats-user-file": user, "nats-url": "tls://u:hunter2@a"}, "two ways to log in: a user or token inside the URL and nats-user-file"},
		"credentials and a token in URL":  {map[string]string{"nats-creds-file": seed, "nats-url": "tls://hunter2@a"}, "two ways"},
		"user without a server":           {map[string]string{"nats-user-file": user, "nats-url": ""}, "nats-user-file: needs nats-url"},
		"an authority without a server":   {map[string]string{"nats-ca": "/ca.pem", "nats-url": ""}, "nats-ca: needs nats-url"},
		"a certificate without its key":   {map[string]string{"nats-cert": "/c.pem"}, "needs nats-key"},
		"two replicas":                    {map[string]string{"nats-replicas": "2"}, "2 is not 1, 3 or 5"},
		"one replica":                     {map[string]string{"nats-replicas": "1"}, ""},
		"monitoring that is no URL":       {map[string]string{"nats-monitor": "n1:8222"}, "nats-monitor: is not a URL"},
		"monitoring of two servers":       {map[string]string{"nats-monitor": "http://n1:8222, http://n2:8222"}, ""},
		"monitoring and no external NATS": {map[string]string{"nats-monitor": "http://n1:8222", "nats-url": ""}, "nats-monitor: needs nats-url"},
	} {
		set := map[string]string{"nats-url": "tls://a:4222"}
		maps.Copy(set, tt.set)
		c, _, err := load(t, set)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if out := c.Redactor().String("hunter2-hunter2"); tt.want == "" && c.NATSUser.IsSet() && out != "[redacted]" {
			t.Errorf("%s: the log says %s", name, out)
		}
	}
	_, warnings, err := load(t, map[string]string{"nats-url": "nats://a:4222", "nats-user-file": user})
	if err != nil || !strings.Contains(fmt.Sprint(warnings), "can be read on the way") {
		t.Errorf("in the clear: %v, %s", err, warnings)
	}
}

func TestAConfigurationFileWithASecretThatOthersMayReadIsAWarning(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		warnings   int
	}{
		{"nothing secret", "rate: 3\n", 0o644, 0},
		{"a token in the URL", "callgoose-url: https://x/p?token=abc\n", 0o644, 1},
		{"a token in the URL, for the owner only", "callgoose-url: https://x/p?token=abc\n", 0o600, 0},
		{"a password of NATS", "nats-url: tls://u:p@a\n", 0o640, 2},
		{"a hook", "alarm-webhook: https://hooks.example/T0\n", 0o600, 1},
	} {
		path := write(t, "c.yaml", tt.text)
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, warnings, err := Load(Input{ConfigPath: path, Environ: []string{"HOME=/h"}})
		if err != nil || len(warnings) != tt.warnings {
			t.Errorf("%s: %v, %q", tt.name, err, warnings)
		}
	}
}

func TestCleartextIsPlainHTTPToAnotherMachine(t *testing.T) {
	for u, want := range map[string]bool{
		"http://127.0.0.1:8080": false, "http://[::1]": false, "http://LocalHost": false, "https://pmm": false, "": false,
		"http://pmm:8080": true, "HTTP://pmm": true, "http://127.0.0.1.example.net": true, "http://localhost.example.net": true,
	} {
		if Cleartext(u) != want {
			t.Errorf("%s: %v", u, !want)
		}
	}
	hook := write(t, "h", "http://hooks.example/T0\n")
	for _, allowed := range []string{"false", "true"} {
		_, _, err := load(t, map[string]string{"alarm-webhook-file": hook, "allow-http": allowed})
		if (err == nil) != (allowed == "true") {
			t.Errorf("allow-http %s: %v", allowed, err)
		}
	}
}

func TestProxiesThatCannotBeUnderstoodAreRefused(t *testing.T) {
	for value, good := range map[string]bool{
		"http://proxy:3128": true, "proxy:3128": true, "proxy": true, "https://u:p@proxy.example:443/": true,
		"socks5://127.0.0.1:1080": true, "http://user:p@ss@proxy:3128": true, "http://user:a%2Fb@proxy": true, "http://[::1]:3128": true,
		`corp\user:Secret#1@proxy:3128`: false, `http://corp\user:Secret1@proxy:3128`: false,
		"http://user:Secret#1@proxy:3128": false, "http://user:Secret1%off@proxy:3128": false, "http://user:Secret1/b@proxy:3128": false,
		"proxy=http://proxy:3128": false, "http://": false, "ftp://proxy:3128": false, "http://proxy:99999": false,
		"http://proxy:3128/Secret1": false, "http://proxy?Secret1": false, "http:proxy:3128": false,
	} {
		for _, name := range proxyVariables {
			_, _, err := Load(Input{Environ: []string{"HOME=/h", name + "=" + value}})
			switch {
			case good && err != nil:
				t.Errorf("%s: %v", value, err)
			case !good && (err == nil || !strings.HasPrefix(err.Error(), name+": ") || strings.Contains(err.Error(), "Secret1")):
				t.Errorf("%s: %v", value, err)
			}
		}
	}
}

func TestTheConfigurationOfThePackageIsFoundWithoutAFlag(t *testing.T) {
	etc := t.TempDir()
	mine := filepath.Join(etc, "credentials")
	if err := os.Mkdir(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.yaml": "concurrency: 3\n", "credentials/callgoose-token": "from-etc\n"} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := write(t, "c.yaml", "concurrency: 4\n")
	token := "from-etc"
	if os.Geteuid() != 0 {
		token = ""
	}
	for _, tt := range []struct {
		name        string
		in          Input
		concurrency int
		token       string
	}{
		{"as installed", Input{Etc: etc}, 3, token},
		{"another file", Input{Etc: etc, ConfigPath: other}, 4, token},
		{"another file, named by the environment", Input{Etc: etc, Environ: []string{"PMM_CALLGOOSE_CONFIG=" + other}}, 4, token},
		{"a variable goes before", Input{Etc: etc, Environ: []string{"PMM_CALLGOOSE_CALLGOOSE_TOKEN=from-env"}}, 3, "from-env"},
		{"nothing is installed", Input{Etc: filepath.Join(etc, "none")}, 16, ""},
		{"nobody asked", Input{}, 16, ""},
	} {
		tt.in.Environ = append(tt.in.Environ, "HOME=/h")
		c, warnings, err := Load(tt.in)
		if err != nil || len(warnings) > 0 || c.Concurrency != tt.concurrency || c.CallgooseToken.Reveal() != tt.token {
			t.Errorf("%s: %v, %v, concurrency %d, token %q", tt.name, err, warnings, c.Concurrency, c.CallgooseToken.Reveal())
		}
	}
}

func TestServeReadsItsCertificates(t *testing.T) {
	junk := write(t, "junk.pem", "no certificate")
	for _, name := range []string{"callgoose-ca", "tls-client-ca"} {
		flags := map[string]string{name: junk}
		_, _, err := Load(Input{Flags: flags, Environ: []string{"HOME=/h"}, Serve: true})
		if err == nil || !strings.Contains(err.Error(), "--"+name+": "+junk+" holds no PEM certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := Load(Input{Flags: map[string]string{"tls-cert": junk, "tls-key": junk}, Environ: []string{"HOME=/h"}, Serve: true})
	if err == nil || !strings.Contains(err.Error(), "do not make a pair") {
		t.Error(err)
	}
}
