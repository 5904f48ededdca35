package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/cli"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/queue"
)

var update = flag.Bool("update", false, "write what is generated in deploy/docs/reference.md anew")

// top is the top of the repository, reference what is generated in part.
const (
	top       = "../.."
	reference = top + "/deploy/docs/reference.md"
)

// ahead is what the documents promise before the program has it: commands, and
// flags of any command. An entry that no document names is an error; one that the
// program has by now is only told, so that branches can be merged in any order.
var ahead = []string{}

// documents are all texts that somebody copies commands from.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{
		"README.md", "CHANGELOG.md", ".github/SECURITY.md", "deploy/docs/*.md", "deploy/pmm/README.md", "deploy/package/config.yaml",
		"deploy/docker/*", "deploy/kubernetes/*", "deploy/podman/*", "deploy/systemd/*", "deploy/pmm/*/*", "deploy/prometheus/rules.yml", "deploy/pmm/*.yml",
	} {
		files, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", pattern, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				continue // a directory
			}
			name, _ := filepath.Rel(top, file)
			all[filepath.ToSlash(name)] = string(b)
		}
	}
	return all
}

// command is a command of the program, as its own help shows it.
type command struct {
	usage string
	flags map[string]string // name without dashes, to what the help says of it
	subs  []string
}

var (
	helpName = regexp.MustCompile(`(?m)^   pmm-callgoose ?([a-z -]*?) - (.*)$`)
	helpFlag = regexp.MustCompile(`(?m)^   --([a-z0-9-]+).*?  +(.*)$`)
	helpSub  = regexp.MustCompile(`(?m)^   ([a-z-]+)(?:, [a-z, ]+)?  +\S`)
)

// program asks the program for the help of every command, and keeps it by path.
func program(t *testing.T) map[string]command {
	t.Helper()
	all := map[string]command{}
	var ask func(words []string)
	ask = func(words []string) {
		var out, errs bytes.Buffer
		if code := cli.Main(slices.Concat([]string{"pmm-callgoose"}, words, []string{"--help"}), nil, &out, &errs); code != 0 {
			t.Fatalf("%v --help ends with %d: %s", words, code, &errs)
		}
		c := command{flags: map[string]string{}}
		if m := helpName.FindStringSubmatch(out.String()); m != nil {
			c.usage = m[2]
		}
		for _, m := range helpFlag.FindAllStringSubmatch(out.String(), -1) {
			c.flags[m[1]] = m[2]
		}
		if _, list, ok := strings.Cut(out.String(), "\nCOMMANDS:\n"); ok {
			list, _, _ = strings.Cut(list, "\n\n")
			for _, m := range helpSub.FindAllStringSubmatch(list, -1) {
				c.subs = append(c.subs, m[1])
			}
		}
		all[strings.Join(words, " ")] = c
		for _, sub := range c.subs {
			ask(append(slices.Clone(words), sub))
		}
	}
	ask(nil)
	if len(all) < 15 || len(all["serve"].flags) < 30 {
		t.Fatalf("the help was not understood: %d commands, %d flags of serve", len(all), len(all["serve"].flags))
	}
	return all
}

var (
	fence  = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```")
	inline = regexp.MustCompile("`([^`\n]+)`")
	word   = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+(?:'[^']*'|"[^"]*"|[^\s'"])*`)
	name   = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// lines are the lines of a text that a shell would be given: what stands in
// fences and in back quotes, or every line of a file that is no document.
func lines(file, text string) (all []string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	if path.Ext(file) != ".md" {
		return strings.Split(text, "\n")
	}
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == "sh" {
			all = append(all, strings.Split(m[2], "\n")...)
		}
	}
	for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all = append(all, m[1])
	}
	return all
}

// invocations are the words behind the program's name in one line, up to the end
// of that command.
func invocations(line string) (all [][]string) {
	words := word.FindAllString(line, -1)
	for i, w := range words {
		if path.Base(strings.Trim(w, `'"`)) != "pmm-callgoose" || i+1 == len(words) || !name.MatchString(words[i+1]) || words[i+1] == "pmm-callgoose" {
			continue
		}
		all = append(all, upToEnd(words[i+1:]))
	}
	return all
}

func upToEnd(words []string) []string {
	end := slices.IndexFunc(words, func(w string) bool {
		return strings.ContainsAny(w[:1], "|&;<>#)") || w == "2>&1"
	})
	if end >= 0 {
		words = words[:end]
	}
	return words
}

// checker holds what documents say against what there is.
type checker struct {
	*testing.T
	commands map[string]command
	used     map[string]bool // entries of ahead that a document names
}

// promised reports whether the documents may name it before it is there.
func (c *checker) promised(what string) bool {
	ok := slices.Contains(ahead, what)
	c.used[what] = c.used[what] || ok
	return ok
}

// invocation checks one command line; the words begin with the command.
func (c *checker) invocation(file string, words []string) {
	at := ""
	for len(words) > 0 && name.MatchString(words[0]) {
		next := strings.TrimSpace(at + " " + words[0])
		if _, ok := c.commands[next]; !ok && !c.promised(next) {
			break
		}
		at, words = next, words[1:]
	}
	found, there := c.commands[at]
	if at == "" || len(found.subs) > 0 && !slices.Contains(words, "--help") {
		c.Errorf("%s: there is no command %q", file, strings.TrimSpace(at+" "+strings.Join(words, " ")))
		return
	}
	if !there {
		return // ahead of the program, flags and all
	}
	for _, w := range words {
		flag, ok := strings.CutPrefix(w, "--")
		flag, _, _ = strings.Cut(flag, "=")
		if _, known := found.flags[flag]; ok && flag != "" && !known && !c.promised("--"+flag) {
			c.Errorf("%s: %s has no flag --%s", file, at, flag)
		}
	}
}

// foreign are flags of other programs that stand alone in back quotes.
var foreign = []string{"add-host"}

// alone checks what stands in back quotes without the program's name.
func (c *checker) alone(file, line string) {
	words := upToEnd(word.FindAllString(line, -1))
	if len(words) > 1 && name.MatchString(words[0]) && (c.commands[words[0]].usage != "" || slices.Contains(ahead, words[0])) {
		c.invocation(file, words)
		return
	}
	if len(words) == 0 || !strings.HasPrefix(words[0], "--") {
		return
	}
	flag, _, _ := strings.Cut(words[0][2:], "=")
	flag = strings.TrimRight(flag, ",.")
	for _, one := range c.commands {
		if _, ok := one.flags[flag]; ok {
			return
		}
	}
	if !slices.Contains(foreign, flag) && !c.promised("--"+flag) {
		c.Errorf("%s: no command has a flag --%s", file, flag)
	}
}

func TestEveryCommandInTheDocumentsIsThere(t *testing.T) {
	c := &checker{t, program(t), map[string]bool{}}
	seen := 0
	for file, text := range documents(t) {
		for _, line := range lines(file, text) {
			strict := path.Ext(file) == ".md"
			if strict {
				c.alone(file, line)
			}
			for _, words := range invocations(line) {
				if _, known := c.commands[words[0]]; !strict && !known && !slices.Contains(ahead, words[0]) {
					continue // a sentence in a comment
				}
				seen++
				c.invocation(file, words)
			}
		}
	}
	if seen < 60 {
		t.Errorf("only %d command lines were found", seen)
	}
	for _, what := range ahead {
		_, there := c.commands[what]
		for _, one := range c.commands {
			_, flag := one.flags[strings.TrimPrefix(what, "--")]
			there = there || flag && strings.HasPrefix(what, "--")
		}
		switch {
		case there: // serve may lack a flag that another command has
			t.Logf("the program has %q by now", what)
		case !c.used[what]:
			t.Errorf("%q is said to be ahead of the program, and no document names it", what)
		}
	}
}

// Every line that only asks a service is given to the program, where none runs: what it
// finds wrong with a flag's value it says first, with exit code 2.
func TestEveryCommandInTheDocumentsIsTaken(t *testing.T) {
	all, commands := documents(t), program(t) // before the directory changes
	var filters bytes.Buffer
	if code := cli.Main([]string{"pmm-callgoose", "filters", "show", "recommended"}, nil, &filters, &filters); code != 0 {
		t.Fatal(&filters)
	}
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"FILE": "a-t0ken-of-the-test", "filters.yaml": filters.String(), "backlog.jsonl": ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("jetstream", 0o700); err != nil {
		t.Fatal(err)
	}
	environ := []string{config.EnvName("data-dir") + "=none", "CONFIGURATION_DIRECTORY=none"}
	elsewhere := []string{"serve", "demo", "setup", "doctor", "config", "bench", "adopt", "leave"} // they ask nobody, or others
	seen := 0
	for file, text := range all {
		for _, line := range lines(file, text) {
			given := invocations(line)
			if words := upToEnd(word.FindAllString(line, -1)); strings.Contains(line, " --") && len(words) > 2 && commands[words[0]].flags != nil {
				given = append(given, words) // without the program's name, in back quotes
			}
			for _, words := range given {
				if path.Ext(file) != ".md" || slices.ContainsFunc(words[:min(len(words), 2)], func(w string) bool { return slices.Contains(elsewhere, w) }) || slices.Contains(words, "--watch") || len(words) == 1 {
					continue
				}
				seen++
				args := []string{"pmm-callgoose"}
				for _, w := range words {
					args = append(args, strings.NewReplacer(`'`, "", `"`, "", "/mnt/copy", ".").Replace(w))
				}
				var out bytes.Buffer
				if code := cli.Main(args, environ, &out, &out); code == 2 && !strings.Contains(out.String(), "no terminal") {
					t.Errorf("%s: %s\n%s", file, strings.Join(words, " "), &out)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d command lines were found", seen)
	}
}

// What the lines name in the repository is there: files, and tasks of Taskfile.yml.
func TestEveryFileAndTaskInTheDocumentsIsThere(t *testing.T) {
	tasks, err := os.ReadFile(top + "/Taskfile.yml")
	if err != nil {
		t.Fatal(err)
	}
	at := regexp.MustCompile(`(?:^|[\s=@(])((?:deploy|testdata|cmd)/[\w./-]+\w)`)
	task := regexp.MustCompile("(?i)task(?:@\\S+ | `)([a-z]+(?::[a-z]+)*)")
	seen := 0
	for file, text := range documents(t) {
		if path.Ext(file) != ".md" {
			continue
		}
		for _, m := range at.FindAllStringSubmatch(strings.Join(lines(file, text), "\n"), -1) {
			seen++
			if _, err := os.Stat(filepath.Join(top, m[1])); err != nil && !strings.HasPrefix(m[1], "deploy/docker/secrets/") {
				t.Errorf("%s: %v", file, err)
			}
		}
		for _, m := range task.FindAllStringSubmatch(text, -1) {
			seen++
			if !strings.Contains(string(tasks), "\n  "+m[1]+":\n") {
				t.Errorf("%s: there is no task %s", file, m[1])
			}
		}
	}
	if seen < 25 {
		t.Errorf("only %d files and tasks", seen)
	}
}

// What status --check can say is explained.
func TestEveryAttentionIsInTheDocuments(t *testing.T) {
	source, err := os.ReadFile(top + "/cmd/internal/admin/attention.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`(?m)^\t\w+ += "([a-z_]+)"$`).FindAllStringSubmatch(string(source), -1)
	for _, m := range codes {
		if !strings.Contains(documents(t)["deploy/docs/operate.md"], "`"+m[1]+"`") {
			t.Errorf("deploy/docs/operate.md does not explain %s", m[1])
		}
	}
	if len(codes) < 15 {
		t.Errorf("only %d codes", len(codes))
	}
}

func TestEveryVariableInTheDocumentsIsKnown(t *testing.T) {
	known := map[string]bool{
		config.EnvName("config"): true, config.EnvName("alarm-text"): true, config.EnvName("fallback-text"): true,
		config.EnvPrefix: true, // as a word of its own
	}
	for _, o := range config.Options() {
		known[o.Env], known[config.EnvName(o.Credential())] = true, true
	}
	for _, c := range program(t) {
		for flag := range c.flags {
			known[config.EnvName(flag)], known[config.EnvName(strings.TrimSuffix(flag, "-file"))] = true, true
		}
	}
	for file, text := range documents(t) {
		for _, v := range regexp.MustCompile(config.EnvPrefix+`[A-Z_]*`).FindAllString(text, -1) {
			if !known[v] {
				t.Errorf("%s names %s, which is not known", file, v)
			}
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notSlug = regexp.MustCompile(`[^a-z0-9 _-]`)
)

func slugsOf(text string) (slugs []string) {
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		slugs = append(slugs, strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return slugs
}

// What the program says of a page must stand there, and names the page itself.
func TestEveryPageThatTheProgramNamesIsThere(t *testing.T) {
	all, seen := documents(t), 0
	page := regexp.MustCompile(`(deploy/docs/[a-z]+\.md)#([a-z-]+)`)
	for _, dir := range []string{"cmd", "ingest", "store", "worker"} {
		err := filepath.WalkDir(filepath.Join(top, dir), func(file string, _ fs.DirEntry, err error) error {
			if err != nil || path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
				return err
			}
			text, err := os.ReadFile(file)
			if strings.Contains(string(text), "in the README") || strings.Contains(string(text), "see the README") {
				t.Errorf("%s sends people to the README: it has no such place", file)
			}
			for _, m := range page.FindAllStringSubmatch(string(text), -1) {
				if seen++; !slices.Contains(slugsOf(all[m[1]]), m[2]) {
					t.Errorf("%s names %s, which is not there", file, m[0])
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 3 {
		t.Errorf("only %d pages are named", seen)
	}
}

func TestEveryLinkInTheDocumentsLeadsSomewhere(t *testing.T) {
	all, seen := documents(t), 0
	for file, text := range all {
		if path.Ext(file) != ".md" {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			seen++
			to := cmp.Or(target, path.Base(file))
			to = path.Join(path.Dir(file), to)
			if _, err := os.Stat(filepath.Join(top, to)); err != nil {
				t.Errorf("%s leads to %s: %v", file, m[1], err)
			}
			if slugs := slugsOf(all[to]); anchor != "" && !slices.Contains(slugs, anchor) {
				t.Errorf("%s leads to %s, where there are %q", file, m[1], slugs)
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d links", seen)
	}
}

// One version stands everywhere: the newest of the changelog.
func TestTheDocumentsNameTheNewestVersion(t *testing.T) {
	all := documents(t)
	m := regexp.MustCompile(`(?m)^## \[([0-9][^\]]*)\]`).FindStringSubmatch(all["CHANGELOG.md"])
	if m == nil {
		t.Fatal("CHANGELOG.md has no version")
	}
	seen := 0
	for file, text := range all {
		for _, v := range regexp.MustCompile(`(?:pmm-callgoose[:_-]|VERSION[:=] ?|build\.sh )(\d+\.\d+\.\d+)`).FindAllStringSubmatch(text, -1) {
			seen++
			if v[1] != m[1] {
				t.Errorf("%s names version %s, the newest is %s", file, v[1], m[1])
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d places name a version", seen)
	}
}

// README.md is read in one go; the rest has a place of its own.
func TestTheReadmeStaysShort(t *testing.T) {
	text := documents(t)["README.md"]
	if n := strings.Count(text, "\n"); n > 250 || len(text) > 14<<10 {
		t.Errorf("README.md has %d lines and %d bytes, 250 and %d are allowed", n, len(text), 14<<10)
	}
}

// Every call of the operators' API is in the reference, and nothing else is.
// Each limit of the security page names a test or a story that holds it, and that is there.
func TestEachLimitIsHeldByATest(t *testing.T) {
	page, err := os.ReadFile("../../deploy/docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	if err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		there[filepath.Base(path)] = filepath.Ext(path) == ".txtar"
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Limits\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows, named := 0, regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || strings.Trim(cells[1], "- ") == "" || strings.TrimSpace(cells[1]) == "what" {
			continue
		}
		rows++
		holders := named.FindAllStringSubmatch(cells[4], -1)
		if len(holders) == 0 {
			t.Errorf("nothing holds the limit of %s", cells[1])
		}
		for _, h := range holders {
			if !there[h[1]] {
				t.Errorf("%s: there is no %s", strings.TrimSpace(cells[1]), h[1])
			}
		}
	}
	if rows < 20 {
		t.Errorf("%d limits are listed", rows)
	}
}

// The memory, processes and logs of the service have a bound wherever our files start it.
func TestOurFilesHaveLimits(t *testing.T) {
	for file, wanted := range map[string][]string{
		"systemd/pmm-callgoose.service":      {"MemoryMax=768M", "MemorySwapMax=0", "TasksMax=512", "GOMEMLIMIT=320MiB", "LimitNOFILE=65536", "NoNewPrivileges=yes", "CapabilityBoundingSet=\n", "ProtectSystem=strict"},
		"docker/compose.yaml":                {"mem_limit: 768m", "memswap_limit: 768m", "pids_limit: 512", "max-size: 10m", `max-file: "3"`, "cap_drop: [ALL]", "read_only: true", "no-new-privileges:true"},
		"docker/Dockerfile":                  {"GOMEMLIMIT=320MiB", "USER 65532:65532"},
		"podman/pmm-callgoose.container":     {"--memory=768m", "--memory-swap=768m", "--pids-limit=512", "DropCapability=all", "ReadOnly=true", "NoNewPrivileges=true"},
		"podman/pmm-callgoose.service":       {"--memory 768m", "--memory-swap 768m", "--pids-limit 512", "--cap-drop all", "--read-only", "no-new-privileges"},
		"kubernetes/standalone.yaml":         {"memory: 768Mi", "automountServiceAccountToken: false", "drop: [ALL]", "readOnlyRootFilesystem: true", "seccompProfile: {type: RuntimeDefault}", "allowPrivilegeEscalation: false"},
		"kubernetes/cluster.yaml":            {"memory: 768Mi", "automountServiceAccountToken: false", "drop: [ALL]", "readOnlyRootFilesystem: true", "seccompProfile: {type: RuntimeDefault}", "allowPrivilegeEscalation: false"},
		"kubernetes/values-pmm-sidecar.yaml": {"memory: 768Mi", "drop: [ALL]", "readOnlyRootFilesystem: true", "seccompProfile: {type: RuntimeDefault}", "allowPrivilegeEscalation: false"},
	} {
		text, err := os.ReadFile("../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range wanted {
			if !strings.Contains(string(text), w) {
				t.Errorf("%s does not say %q", file, w)
			}
		}
	}
}

func TestTheReferenceListsTheAPI(t *testing.T) {
	call := regexp.MustCompile("[\"`]((?:GET|POST|PUT|DELETE) /(?:api/v1/[^\"`]*|healthz|readyz|metrics))[\"`]")
	find := func(text string) (calls []string) {
		for _, m := range call.FindAllStringSubmatch(text, -1) {
			calls = append(calls, m[1])
		}
		return calls
	}
	var served []string
	for _, text := range sources(t, top+"/cmd/internal/admin/web") {
		served = append(served, find(text)...)
	}
	listed := find(documents(t)["deploy/docs/reference.md"])
	slices.Sort(served)
	slices.Sort(listed)
	if len(served) < 10 || !slices.Equal(served, listed) {
		t.Errorf("served:\n%s\nin the reference:\n%s", strings.Join(served, "\n"), strings.Join(listed, "\n"))
	}
}

// Every field that the reference explains is one that some line has.
func TestTheReferenceExplainsFieldsOfTheLog(t *testing.T) {
	all := ""
	for _, dir := range []string{"cmd", "ingest", "worker", "store"} {
		all += strings.Join(sources(t, top+"/"+dir), "\n")
	}
	_, table, _ := strings.Cut(documents(t)["deploy/docs/reference.md"], "| field | what |\n")
	seen := 0
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 3 {
			break
		}
		for _, m := range inline.FindAllStringSubmatch(cells[1], -1) {
			if seen++; !strings.Contains(all, `"`+m[1]+`"`) {
				t.Errorf("no line of the log has %s", m[1])
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d fields", seen)
	}
}

// sources are the program's own files below dir, without tests.
func sources(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(file string, _ fs.DirEntry, err error) error {
		if err != nil || path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return err
		}
		b, err := os.ReadFile(file)
		all = append(all, string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// common are the flags that nearly every command has.
var common = []string{"help", "config", "output", "data-dir", "admin-url", "admin-ca", "admin-token-file"}

// generated makes the sections of the reference that the program itself knows.
func generated(commands map[string]command) map[string]string {
	var list, flags, settings strings.Builder
	list.WriteString("| command | what it does |\n|---|---|\n")
	setting := map[string]bool{}
	settings.WriteString("| flag | environment variable | default | meaning |\n|---|---|---|---|\n")
	group := ""
	for _, o := range config.Options() {
		setting[o.Name] = true
		if o.Group != group {
			group = o.Group
			fmt.Fprintf(&settings, "| **%s** | | | |\n", group)
		}
		usage := o.Usage
		if len(o.Values) > 0 {
			usage = "`" + strings.Join(o.Values, "`, `") + "`: " + usage
		}
		fmt.Fprintf(&settings, "| `--%s` | `%s` | %s | %s |\n", o.Name, o.Env, cmp.Or(o.Default, "none"), usage)
	}
	users := map[string][]string{} // "flag | meaning" to the commands that have it
	for _, at := range slices.Sorted(maps.Keys(commands)) {
		c := commands[at]
		if at == "" || len(c.subs) > 0 {
			continue
		}
		fmt.Fprintf(&list, "| `%s` | %s |\n", at, c.usage)
		for flag, usage := range c.flags {
			own := at == "replay" && flag == "rate" // not the setting of that name
			if setting[flag] && !own || slices.Contains(common, flag) {
				continue
			}
			row := fmt.Sprintf("| `--%s` | %s |", flag, strings.ReplaceAll(usage, "|", `\|`))
			users[row] = append(users[row], "`"+at+"`")
		}
	}
	flags.WriteString("| flag | meaning | of |\n|---|---|---|\n")
	for _, row := range slices.Sorted(maps.Keys(users)) {
		fmt.Fprintf(&flags, "%s %s |\n", row, strings.Join(users[row], ", "))
	}
	return map[string]string{"commands": list.String(), "flags": flags.String(), "settings": settings.String()}
}

// What the document says of NATS is what the program demands there.
func TestThePermissionsInTheDocumentsAreEnough(t *testing.T) {
	plain := strings.NewReplacer(" ", "", "\n", "", ",", "").Replace
	if !strings.Contains(plain(documents(t)["deploy/docs/cluster.md"]), plain(queue.Permissions)) {
		t.Errorf("deploy/docs/cluster.md should say: %s", queue.Permissions)
	}
}

func TestTheReferenceIsTheProgram(t *testing.T) {
	old := documents(t)["deploy/docs/reference.md"]
	text := old
	for section, want := range generated(program(t)) {
		begin := "<!-- generated: " + section + " -->\n"
		head, tail, ok := strings.Cut(text, begin)
		_, tail, end := strings.Cut(tail, "<!-- end -->")
		if !ok || !end {
			t.Fatalf("the reference has no section %s", section)
		}
		text = head + begin + want + "<!-- end -->" + tail
	}
	if *update {
		if err := os.WriteFile(reference, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text == old {
		return
	}
	was := strings.Split(old, "\n")
	for line := range strings.SplitSeq(text, "\n") {
		if !slices.Contains(was, line) {
			t.Errorf("deploy/docs/reference.md lacks this line, -update writes it: %s", line)
		}
	}
	t.Error("deploy/docs/reference.md is not what the program says: run this test with -update")
}

var fiveMinutes = flag.Bool("five-minutes", false, "run the lines of README.md's five minutes")

// The lines of README.md's five minutes are run as they stand there, in a home
// directory of their own and on other ports.
func TestTheFiveMinutesRun(t *testing.T) {
	if !*fiveMinutes {
		t.Skip("links three programs: task test:script runs it")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	_, section, _ := strings.Cut(documents(t)["README.md"], "## Five minutes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := fence.FindAllStringSubmatch(section, -1)
	if len(blocks) != 2 {
		t.Fatalf("the five minutes have %d blocks, want the demo and the lines by hand", len(blocks))
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, config.EnvPrefix) })
	for _, v := range []string{"GOPATH", "GOCACHE", "GOMODCACHE"} {
		out, err := exec.Command("go", "env", v).Output()
		if err != nil {
			t.Skip("no go tool: ", err)
		}
		env = append(env, v+"="+strings.TrimSpace(string(out)))
	}
	webhooks, fake := freePort(t), freePort(t)
	env = append(env, "HOME="+t.TempDir(), config.EnvName("listen")+"=127.0.0.1:"+webhooks, config.EnvName("admin-listen")+"=127.0.0.1:0")
	moved := strings.NewReplacer("127.0.0.1:4667", "127.0.0.1:"+webhooks, "127.0.0.1:4670", "127.0.0.1:"+fake,
		"callgoose-fake --quiet", "callgoose-fake --quiet --listen 127.0.0.1:"+fake)
	for i, block := range blocks {
		lines := moved.Replace(block[2])
		// Job numbers need job control, and nothing may be left behind.
		script := "set -eum\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + lines + "wait\n"
		cmd := exec.CommandContext(t.Context(), bash, "-c", script)
		cmd.Dir, cmd.Env, cmd.WaitDelay = top, env, patience
		start := time.Now()
		out, err := cmd.CombinedOutput()
		t.Logf("block %d: %s", i+1, time.Since(start).Round(time.Millisecond))
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, lines, out)
		}
		want := []string{"every alert arrived once and in order"}
		if i == 1 {
			want = []string{"The whole way works", `"alerts":5`, `"alerts":1`, "MySQL Down"}
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%q is not said:\n%s", w, out)
			}
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
