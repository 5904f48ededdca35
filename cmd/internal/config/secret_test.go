package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func TestSecretsComeFromTheFirstSourceThatHasThem(t *testing.T) {
	flag, env, yml := write(t, "a", "from-flag\n"), write(t, "b", "from-env-file\r\n"), write(t, "c", "from-yaml")
	creds := filepath.Dir(write(t, "ingest-token", "from-credential\n"))
	file := write(t, "c.yaml", "ingest-token-file: "+yml+"\n")
	in := Input{
		Flags:      map[string]string{"ingest-token-file": flag},
		Environ:    []string{"PMM_CALLGOOSE_INGEST_TOKEN_FILE=" + env, "CREDENTIALS_DIRECTORY=" + creds, "PMM_CALLGOOSE_INGEST_TOKEN=from-env"},
		ConfigPath: file,
	}
	check := func(want, wantFrom, wantFile string) {
		t.Helper()
		c, warnings, err := Load(in)
		if err != nil || len(warnings) > 0 {
			t.Fatal(err, warnings)
		}
		if got := c.IngestToken.Reveal(); got != want {
			t.Errorf("the secret is %q, want %q", got, want)
		}
		if got := from(t, c, "ingest-token"); got != (Setting{"ingest-token", "[redacted]", wantFrom, wantFile}) {
			t.Errorf("shown as %+v", got)
		}
	}
	check("from-flag", "flag", flag)
	in.Flags = nil
	check("from-env-file", "environment", env)
	in.Environ = in.Environ[1:]
	check("from-yaml", file+":1", yml)
	in.ConfigPath = ""
	check("from-credential", "credential", filepath.Join(creds, "ingest-token"))
	in.Environ = in.Environ[1:]
	check("from-env", "environment", "")
}

func TestSecretsThatCannotBeUsed(t *testing.T) {
	creds := filepath.Dir(write(t, "callgoose-token", "\n"))
	empty := write(t, "s", "\n")
	tests := []struct {
		name string
		in   Input
		want string
	}{
		{"empty file", Input{Flags: map[string]string{"callgoose-token-file": empty}}, "--callgoose-token-file: " + empty + " is empty"},
		{"the token itself", Input{Flags: map[string]string{"callgoose-token-file": "hunter2"}}, "--callgoose-token-file: the file it names cannot be read: no such file or directory"},
		{"a token like a path", Input{Flags: map[string]string{"callgoose-token-file": "/hunter2"}}, "--callgoose-token-file: the file it names cannot be read: no such file or directory"},
		{"a token like a long path", Input{Flags: map[string]string{"callgoose-token-file": "/hunter2/hunter2"}}, "--callgoose-token-file: the file it names cannot be read: no such file or directory"},
		{"a missing file", Input{Flags: map[string]string{"callgoose-token-file": creds + "/gone"}}, "--callgoose-token-file: " + creds + "/gone cannot be read: no such file or directory"},
		{"two lines", Input{Flags: map[string]string{"callgoose-token-file": write(t, "s", "hunter2\nhunter2\n")}}, "--callgoose-token-file: the secret holds a control character"},
		{"a directory", Input{Environ: []string{"PMM_CALLGOOSE_CALLGOOSE_TOKEN_FILE=/"}}, "PMM_CALLGOOSE_CALLGOOSE_TOKEN_FILE: the file it names cannot be read: is a directory"},
		{"endless", Input{Flags: map[string]string{"callgoose-token-file": "/dev/zero"}}, "--callgoose-token-file: /dev/zero is too large"},
		{"empty credential", Input{Environ: []string{"CREDENTIALS_DIRECTORY=" + creds}}, "$CREDENTIALS_DIRECTORY/callgoose-token: "},
		{"empty variable", Input{Environ: []string{"PMM_CALLGOOSE_CALLGOOSE_TOKEN=\n"}}, "PMM_CALLGOOSE_CALLGOOSE_TOKEN: is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Environ = append(tt.in.Environ, "HOME=/h")
			c, _, err := Load(tt.in)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("problems are %v, want %q", err, tt.want)
			}
			if all := fmt.Sprintf("%v %+v", err, c.Effective()); strings.Contains(all, "hunter2") {
				t.Errorf("the secret is in %s", all)
			}
		})
	}
}

func TestAFileOthersCanReadIsAWarning(t *testing.T) {
	path := write(t, "s", "x")
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	_, warnings, err := Load(Input{Flags: map[string]string{"admin-token-file": path}, Environ: []string{"HOME=/h"}})
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(string(warnings[0]), "--admin-token-file: other users") {
		t.Error(err, warnings)
	}
}

// A pod gets its secrets as files of root's with the group that fsGroup names.
func TestAFileOfSomebodyElseMayBeReadByOurGroup(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	tests := []struct {
		name   string
		mode   os.FileMode
		uid    int
		groups []int
		want   bool
	}{
		{"somebody else's, through our group", 0o440, uid + 1, []int{gid + 1, gid}, false},
		{"somebody else's, through our group, and everybody's", 0o444, uid + 1, []int{gid}, true},
		{"somebody else's, through our group, and other groups' too", 0o404, uid + 1, []int{gid}, true},
		{"somebody else's, through a group that is not ours", 0o440, uid + 1, []int{gid + 1}, true},
		{"our own: nobody else need read it", 0o440, uid, []int{gid}, true},
		{"our own", 0o400, uid, []int{gid}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, "s", "x")
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := Exposed(fi, tt.uid, tt.groups); got != tt.want {
				t.Errorf("exposed: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestASecretOfAPodIsNoWarning(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	for _, tt := range []struct {
		mode     os.FileMode
		gid      int
		warnings int
	}{{0o440, os.Getegid(), 0}, {0o444, os.Getegid(), 1}, {0o440, 54321, 1}} {
		path := write(t, "s", "x")
		if err := errors.Join(os.Chown(path, 54321, tt.gid), os.Chmod(path, tt.mode)); err != nil {
			t.Fatal(err)
		}
		_, warnings, err := Load(Input{Flags: map[string]string{"admin-token-file": path}, Environ: []string{"HOME=/h"}})
		if err != nil || len(warnings) != tt.warnings {
			t.Errorf("mode %o, group %d: %v, %v", tt.mode, tt.gid, warnings, err)
		}
	}
}

func TestReload(t *testing.T) {
	path := write(t, "s", "one\n")
	c, _, err := Load(Input{Flags: map[string]string{"callgoose-token-file": path}, Environ: []string{"HOME=/h"}})
	if err != nil {
		t.Fatal(err)
	}
	s := c.CallgooseToken
	step := func(text, want string, wantChanged, wantErr bool) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		changed, err := s.Reload()
		if changed != wantChanged || (err != nil) != wantErr || s.Reveal() != want {
			t.Errorf("after %q: %q, changed %v, %v", text, s.Reveal(), changed, err)
		}
	}
	step("one\n", "one", false, false)
	step("two", "two", true, false)
	step("", "two", false, true)
	step("a\nb", "two", false, true)

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				_, _ = s.Reload()
				_ = s.Reveal()
			}
		})
	}
	wg.Wait()
	if changed, err := NewSecret("x").Reload(); changed || err != nil {
		t.Error("a secret without a file changed", err)
	}
	if changed, err := (*Secret)(nil).Reload(); changed || err != nil || (*Secret)(nil).Reveal() != "" {
		t.Error("a nil secret is not unset")
	}
}

func TestNothingSecretIsEverPrinted(t *testing.T) {
	const secret = "hunter2"
	token := write(t, "t", secret)
	c, _, err := Load(Input{
		Flags: map[string]string{
			"callgoose-url":          "https://x.example/v1/process?from=A&token=" + secret,
			"ingest-token-file":      token,
			"ingest-basic-auth-file": write(t, "b", "user:"+secret),
			"nats-url":               "nats://user:" + secret + "@n1:4222," + "nats://" + secret + "@n2:4222",
			"alarm-webhook":          "https://hooks.example/services/" + secret + "?k=" + secret,
		},
		Environ: []string{"PMM_CALLGOOSE_ADMIN_TOKEN=" + secret, "HOME=/h"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{c, *c, c.IngestToken, c.NATSURL, c.AlarmWebhook, c.Effective(), c.Secrets()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("config", "v", v)
		}
		for _, encode := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
			b, err := encode(v)
			if err != nil {
				t.Error(err)
			}
			out.Write(b)
		}
	}
	for _, bad := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret)} {
		if i := strings.Index(out.String(), bad); i >= 0 {
			t.Errorf("%q is in ...%s", bad, out.String()[max(0, i-200):i+20])
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("nothing was redacted")
	}
	if s := from(t, c, "nats-url").Value; s != "nats://[redacted]@n1:4222,nats://[redacted]@n2:4222" {
		t.Error(s)
	}
	if s := from(t, c, "alarm-webhook").Value; s != "https://hooks.example/[redacted]" {
		t.Error(s)
	}
	if s := NewSecret("").String() + (*Secret)(nil).String() + (&Secret{}).String(); s != "" {
		t.Errorf("unset secrets print %q", s)
	}
}

func TestTokenAndFromInTheURL(t *testing.T) {
	file := write(t, "t", "file-token")
	tests := []struct {
		name                   string
		flags                  map[string]string
		url, token, auth, from string
		problem                string
	}{
		{"neither", map[string]string{"callgoose-url": "https://x/p"}, "https://x/p", "", "bearer", "PerconaPMM", ""},
		{"as in the guide", map[string]string{"callgoose-url": "https://x/p?from=PMM&token=a%2Bb"}, "https://x/p", "a+b", "query", "PMM", ""},
		{"others stay as they are", map[string]string{"callgoose-url": "https://x/p?z=1&token=t&a=%20"}, "https://x/p?z=1&a=%20", "t", "query", "PerconaPMM", ""},
		{"auth said otherwise", map[string]string{"callgoose-url": "https://x/p?token=t", "callgoose-auth": "bearer"}, "https://x/p", "t", "bearer", "PerconaPMM", ""},
		{"from said otherwise", map[string]string{"callgoose-url": "https://x/p?from=PMM", "callgoose-from": "Mine"}, "https://x/p", "", "bearer", "Mine", ""},
		{"empty ones", map[string]string{"callgoose-url": "https://x/p?from=&token="}, "https://x/p", "", "bearer", "PerconaPMM", ""},
		{"two tokens", map[string]string{"callgoose-url": "https://x/p?token=hunter2", "callgoose-token-file": file}, "", "", "", "", "--callgoose-url: holds token= while there is another token (flag)"},
		{"token twice", map[string]string{"callgoose-url": "https://x/p?token=hunter2&token=hunter2"}, "", "", "", "", "--callgoose-url: holds token= twice"},
		{"bad escape", map[string]string{"callgoose-url": "https://x/p?token=hunter2%zz"}, "", "", "", "", "--callgoose-url: has a query with a bad % escape"},
		{"fragment", map[string]string{"callgoose-url": "https://x/p?token=a#hunter2"}, "", "", "", "", "--callgoose-url: holds a #; inside a token it is written %23"},
		{"bad host", map[string]string{"callgoose-url": "https://x:hunter2/p?token=hunter2"}, "", "", "", "", "--callgoose-url: is not a URL"},
		{"control character", map[string]string{"callgoose-url": "https://x/p?token=hunter2%0Ahunter2"}, "", "", "", "", "--callgoose-url: token=: the secret holds a control character"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, warnings, err := Load(Input{Flags: tt.flags, Environ: []string{"HOME=/h"}})
			if all := fmt.Sprintf("%+v %v %v %+v", c, warnings, err, c.Effective()); strings.Contains(all, "hunter2") {
				t.Errorf("the token is in %s", all)
			}
			if tt.problem != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.problem) || strings.Contains(err.Error(), "\n") {
					t.Errorf("problems are %v, want %q", err, tt.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.CallgooseURL != tt.url || c.CallgooseToken.Reveal() != tt.token || c.CallgooseAuth != tt.auth || c.CallgooseFrom != tt.from {
				t.Errorf("got %s %s %s %s", c.CallgooseURL, c.CallgooseToken.Reveal(), c.CallgooseAuth, c.CallgooseFrom)
			}
			if (len(warnings) == 1) != (tt.token != "") {
				t.Errorf("warnings are %v", warnings)
			}
			if got := from(t, c, "callgoose-url").Value; got != tt.url {
				t.Errorf("shown as %s", got)
			}
		})
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "90s": 90 * time.Second, "72h": 72 * time.Hour, "30d": 720 * time.Hour, "1.5d": 36 * time.Hour,
		"1d12h": 36 * time.Hour, "1ms": time.Millisecond, "106751d": 106751 * 24 * time.Hour,
		"": -1, "d": -1, "5": -1, "-1s": -1, "-1d": -1, "1d-2h": -1, "1d2d": -1, "1e3d": -1, "off": -1, "106752d": -1, "..d": -1, "+1s": -1,
	} {
		got, err := ParseDuration(text)
		if (want < 0) != (err != nil) || err == nil && got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for flag, want := range map[string]bool{"resend-after": true, "expect-every": true, "timeout": false, "retention": false} {
		for _, zero := range []string{"off", "0"} {
			_, _, err := Load(Input{Flags: map[string]string{flag: zero}, Environ: []string{"HOME=/h"}})
			if (err == nil) != want {
				t.Errorf("%s %s: %v", flag, zero, err)
			}
		}
	}
}

func TestSizesAndRates(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "512B": 512, "1KiB": 1 << 10, "10MiB": 10 << 20, "2GiB": 2 << 30, "1.5 GiB": 3 << 29, "1TiB": 1 << 40,
		"": -1, "GiB": -1, "10MB": -1, "10m": -1, "-1": -1, "1e9": -1, "9999999TiB": -1, "1.2.3KiB": -1, "0x10": -1,
	} {
		got, err := ParseSize(text)
		if (want < 0) != (err != nil) || err == nil && got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]float64{"0": 0, "unlimited": 0, "2.5": 2.5, "1e2": 100, "-1": -1, "NaN": -1, "Inf": -1, "": -1} {
		c, _, err := Load(Input{Flags: map[string]string{"rate": text}, Environ: []string{"HOME=/h"}})
		if (want < 0) != (err != nil) || err == nil && c.Rate != want {
			t.Errorf("rate %q is %v, %v; want %v", text, c.Rate, err, want)
		}
	}
}
