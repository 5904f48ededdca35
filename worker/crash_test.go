package worker

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

// crashDir says that the process is the one that is recorded, and where.
const crashDir = "PMM_CALLGOOSE_CRASH_DIR"

// TestPowerCuts records what the worker writes, rebuilds its directory as a power cut
// could have left it at many moments, opens each, and looks for every alert that was
// answered 202. The file systems:
//
//	ext4   of what was appended since the last fsync a prefix is there (data=ordered)
//	any    any sectors of it are there, and any are not
//	posix  and a name is certain only after the fsync of its directory
//
// PMM_CALLGOOSE_CRASH_STATES makes more of them. It needs strace.
func TestPowerCuts(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil || testing.Short() {
		t.Skip("skipped: it takes some seconds, and strace is needed:", err)
	}
	states := 18
	if n, err := strconv.Atoi(os.Getenv("PMM_CALLGOOSE_CRASH_STATES")); err == nil {
		states = n
	}
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	if err := os.Mkdir(trace, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("strace", "-f", "-ff", "-ttt", "-T", "-xx", "-s", "33554432", "--seccomp-bpf",
		"-e", "trace=openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,ftruncate,close,lseek",
		"-o", filepath.Join(trace, "t"), os.Args[0], "-test.run=^TestPowerCutsRecorded$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("ptrace")) {
			t.Skipf("skipped: nothing may be traced here: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	rec := readTrace(t, trace, dir)
	t.Logf("%d operations on %d files", len(rec.ops), rec.objects)
	for _, model := range []string{"ext4", "any", "posix"} {
		t.Run(model, func(t *testing.T) {
			for n := range states / 3 {
				rec.state(t, model, n)
			}
		})
	}
}

// TestPowerCutsRecorded is what is recorded: two lives of the worker under load, with an
// outage in each.
func TestPowerCutsRecorded(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("run by TestPowerCuts")
	}
	journal, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	var words [16]int
	for range 2 {
		far := &recorder{journal: journal}
		l := &life{dir: filepath.Join(dir, "data")}
		marker, err := l.open(true, nil, log)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.run(&settings{Concurrency: 4, RetryMin: time.Millisecond}, marker, far, nil, log); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 40 {
					far.down.Store(i > 20 && i < 30)
					k := w + 4*(i%4)
					m := crashWord(k, words[k])
					now := time.Now().UTC()
					if _, err := l.queue.Publish(t.Context(), event.Notification{Source: "pmm", BeganAt: now, ReceivedAt: now, Alerts: 1, Body: body(t, m)}); err != nil {
						t.Error(err)
						return
					}
					fmt.Fprintf(journal, "acked k%d %d\n", k, words[k])
					words[k]++
				}
			})
		}
		wg.Wait()
		time.Sleep(50 * time.Millisecond)
		l.close()
	}
}

// crashWord is the nth word of an alert: it fires, recovers, fires anew.
func crashWord(k, n int) member {
	at := time.Date(2026, 1, 1, n/2, 0, 0, 0, time.UTC)
	m := firing(fmt.Sprint("k", k), at)
	if n%2 == 1 {
		m = resolved(fmt.Sprint("k", k), at, at.Add(time.Minute))
	}
	m.Annotations = map[string]string{"word": strconv.Itoa(n), "pad": strings.Repeat("x", 40*(n+k))}
	return m
}

// recorder is a Callgoose that keeps, or writes down, what it got.
type recorder struct {
	journal io.Writer // nil = it is kept
	down    atomic.Bool
	mu      sync.Mutex
	got     []crashSeen
}

// crashSeen is one line of the journal: a word that was answered 202, or arrived.
type crashSeen struct {
	at       float64
	acked    bool
	key      string
	word     int
	id, hash string
}

func (f *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	var p posted
	if err = errors.Join(err, json.Unmarshal(b, &p)); err != nil {
		return nil, err
	}
	code := http.StatusServiceUnavailable
	if !f.down.Load() {
		code = http.StatusOK
		h := fnv.New64a()
		_, _ = h.Write(b)
		s := crashSeen{key: strings.TrimPrefix(p.Key, "pmm-"), word: p.Alerts[0].Annotations.Word, id: p.ID, hash: fmt.Sprintf("%x", h.Sum64())}
		if f.journal != nil {
			fmt.Fprintf(f.journal, "sent %s %d %s %s\n", s.key, s.word, s.id, s.hash)
		}
		f.mu.Lock()
		f.got = append(f.got, s)
		f.mu.Unlock()
	}
	return &http.Response{
		StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"id":"1"}`)),
	}, nil
}

// op is one change of the directory.
type op struct {
	in, out  float64 // when it began and ended
	what     string  // create, mkdir, rename, unlink, write, truncate, sync, syncdir
	obj      int     // a file, whatever its name is
	off      int64   // size of a truncate
	data     []byte
	path, to string
}

// recording is all that happened.
type recording struct {
	root    string
	ops     []op
	objects int
	seen    []crashSeen
}

var (
	callLine = regexp.MustCompile(`^(\d+\.\d+) (\w+)\((.*)\) += (\d+)(?:<[^>]*>)? <(\d+\.\d+)>$`)
	quoted   = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
)

// call is a line of a trace.
type call struct {
	in, out    float64
	name, args string
	ret        int64
}

func (c *call) strings() (list []string) {
	for _, m := range quoted.FindAllStringSubmatch(c.args, -1) {
		b, _ := hex.DecodeString(strings.ReplaceAll(m[1], `\x`, ""))
		list = append(list, string(b))
	}
	return list
}

// lastNumber is the last argument.
func (c *call) lastNumber() int64 {
	n, _ := strconv.ParseInt(c.args[strings.LastIndex(c.args, " ")+1:], 10, 64)
	return n
}

func readTrace(t *testing.T, trace, dir string) *recording {
	t.Helper()
	var calls []call
	files, _ := filepath.Glob(filepath.Join(trace, "t.*"))
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(f)
		for err == nil {
			var line string
			line, err = r.ReadString('\n')
			m := callLine.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil {
				continue // failed, or not finished
			}
			c := call{name: m[2], args: m[3]}
			c.in, _ = strconv.ParseFloat(m[1], 64)
			took, _ := strconv.ParseFloat(m[5], 64)
			c.out = c.in + took
			c.ret, _ = strconv.ParseInt(m[4], 10, 64)
			calls = append(calls, c)
		}
		_ = f.Close()
	}
	slices.SortStableFunc(calls, func(a, b call) int { return cmp.Compare(a.in, b.in) })
	rd := &reader{
		recording: recording{root: filepath.Join(dir, "data")}, journal: filepath.Join(dir, "journal"),
		names: map[string]int{}, sizes: map[int]int64{}, open: map[int64]*openFile{},
	}
	for i := range calls {
		rd.call(&calls[i])
	}
	return &rd.recording
}

// reader makes operations of calls.
type reader struct {
	recording
	journal string
	names   map[string]int
	sizes   map[int]int64
	open    map[int64]*openFile
}

type openFile struct {
	path    string
	obj     int // 0 = a directory, or the journal
	pos     int64
	appends bool
}

func (r *reader) call(c *call) {
	fd, _ := strconv.ParseInt(strings.TrimRight(strings.SplitN(c.args, ",", 2)[0], ") "), 10, 64)
	o := op{in: c.in, out: c.out}
	paths := c.strings()
	switch c.name {
	case "openat":
		if path := paths[0]; strings.HasPrefix(path, r.root) || path == r.journal {
			r.opened(c, o, path)
		} else {
			delete(r.open, c.ret)
		}
		return
	case "mkdir", "mkdirat":
		o.what, o.path = "mkdir", paths[0]
	case "unlink", "unlinkat":
		o.what, o.path = "unlink", paths[0]
		if f := r.open[fd]; f != nil && !filepath.IsAbs(o.path) {
			o.path = filepath.Join(f.path, o.path)
		}
		delete(r.names, o.path)
	case "rename", "renameat", "renameat2":
		o.what, o.path, o.to = "rename", paths[0], paths[1]
		rename(r.names, o.path, o.to)
	case "close":
		delete(r.open, fd)
		return
	default:
		r.onFile(c, o, r.open[fd])
		return
	}
	if strings.HasPrefix(o.path, r.root) {
		r.ops = append(r.ops, o)
	}
}

// opened takes in a file that was opened.
func (r *reader) opened(c *call, o op, path string) {
	f := &openFile{path: path, appends: strings.Contains(c.args, "O_APPEND")}
	r.open[c.ret] = f
	if path == r.journal || strings.Contains(c.args, "O_DIRECTORY") {
		return
	}
	obj, there := r.names[path]
	switch {
	case !there && !strings.Contains(c.args, "O_CREAT"): // a directory
		return
	case !there:
		r.objects++
		obj = r.objects
		r.names[path] = obj
		o.what, o.obj, o.path = "create", obj, path
		r.ops = append(r.ops, o)
	}
	if strings.Contains(c.args, "O_TRUNC") {
		o.what, o.obj, o.off = "truncate", obj, 0
		r.ops = append(r.ops, o)
		r.sizes[obj] = 0
	}
	f.obj = obj
}

// onFile takes in what was done to an open file.
func (r *reader) onFile(c *call, o op, f *openFile) {
	if f == nil {
		return
	}
	switch o.obj = f.obj; c.name {
	case "write", "pwrite64":
		o.what, o.off, o.data = "write", f.pos, []byte(c.strings()[0])
		if f.path == r.journal {
			r.line(c, string(o.data))
			return
		}
		switch {
		case c.name == "pwrite64":
			o.off = c.lastNumber()
		case f.appends:
			o.off = r.sizes[f.obj]
			fallthrough
		default:
			f.pos = o.off + int64(len(o.data))
		}
		r.sizes[f.obj] = max(r.sizes[f.obj], o.off+int64(len(o.data)))
	case "ftruncate":
		o.what, o.off = "truncate", c.lastNumber()
		r.sizes[f.obj] = o.off
	case "lseek":
		f.pos = c.ret
		return
	default:
		if o.what, o.path = "sync", f.path; f.obj == 0 {
			o.what = "syncdir"
		}
	}
	r.ops = append(r.ops, o)
}

// line takes in one of the journal. What was acknowledged was so before the line was
// written, what arrived is known when it was.
func (r *reader) line(c *call, text string) {
	s := crashSeen{at: c.out}
	var what string
	_, _ = fmt.Sscan(text, &what, &s.key, &s.word, &s.id, &s.hash)
	if s.acked = what == "acked"; !s.acked {
		s.at = c.in
	}
	r.seen = append(r.seen, s)
}

func rename(names map[string]int, from, to string) {
	moved := map[string]int{}
	for name, obj := range names {
		if name == from || strings.HasPrefix(name, from+"/") {
			moved[to+strings.TrimPrefix(name, from)] = obj
			delete(names, name)
		}
	}
	maps.Copy(names, moved)
}

const sector = 512

// cut is the directory as a power cut at a moment may have left it.
type cut struct {
	*recording
	rng    *rand.Rand
	model  string
	at     float64
	chance float64 // of what is not certain
	synced map[string]float64
	names  map[string]int
	files  map[int][]byte
	ended  map[int]bool // nothing more of it is there
	stop   bool         // nor of the names
}

// certain reports whether an operation is on the disk whatever happens. A journal of
// the file system makes all names certain with each fsync; POSIX only those of a
// directory with its own.
func (d *cut) certain(o *op) bool {
	switch o.what {
	case "write", "truncate":
		return o.out <= d.synced[strconv.Itoa(o.obj)]
	case "mkdir":
		return true
	}
	if d.model == "posix" {
		return o.out <= d.synced[filepath.Dir(cmp.Or(o.to, o.path))]
	}
	return o.out <= d.synced[""]
}

func (d *cut) build(to string) error {
	for i := range d.ops {
		o := &d.ops[i]
		name := o.path
		if o.what == "sync" {
			name = strconv.Itoa(o.obj)
		}
		if (o.what == "sync" || o.what == "syncdir") && o.out < d.at {
			d.synced[name] = max(d.synced[name], o.in)
			d.synced[""] = max(d.synced[""], o.in)
		}
	}
	for i := range d.ops {
		if o := &d.ops[i]; o.in < d.at {
			d.apply(o, to)
		}
	}
	for name, obj := range d.names {
		path := to + strings.TrimPrefix(name, d.root)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, d.files[obj], 0o600)); err != nil {
			return err
		}
	}
	return nil
}

func (d *cut) apply(o *op, to string) {
	certain := d.certain(o)
	switch o.what {
	case "write":
		d.write(o, certain)
		return
	case "truncate":
		if certain || d.rng.Float64() < d.chance {
			b := d.files[o.obj]
			d.files[o.obj] = append(b[:min(int64(len(b)), o.off)], make([]byte, max(0, o.off-int64(len(b))))...)
		}
		return
	case "mkdir":
		_ = os.MkdirAll(to+strings.TrimPrefix(o.path, d.root), 0o700)
		return
	}
	if !certain {
		if d.stop || d.rng.Float64() >= d.chance {
			d.stop = d.model != "posix" // names come in order
			return
		}
	}
	switch o.what {
	case "create":
		d.names[o.path] = o.obj
	case "rename":
		rename(d.names, o.path, o.to)
	case "unlink":
		delete(d.names, o.path)
	}
}

// write puts down what is there of a write.
func (d *cut) write(o *op, certain bool) {
	put := func(from, to int) {
		b, end := d.files[o.obj], o.off+int64(to)
		if int64(len(b)) < end {
			b = append(b, make([]byte, end-int64(len(b)))...)
		}
		copy(b[o.off+int64(from):], o.data[from:to])
		d.files[o.obj] = b
	}
	size := int64(len(d.files[o.obj]))
	switch {
	case certain:
		put(0, len(o.data))
	case d.model == "ext4" && o.off >= size: // appended
		n := len(o.data)
		if o.off > size || d.ended[o.obj] {
			return
		}
		if d.rng.Float64() >= d.chance {
			d.ended[o.obj], n = true, d.rng.IntN(n+1)
		}
		put(0, n)
	default:
		for from := 0; from < len(o.data); {
			to := min(len(o.data), from+sector-int((o.off+int64(from))%sector))
			if d.rng.Float64() < d.chance {
				put(from, to)
			}
			from = to
		}
	}
}

// state makes one state, opens it, and looks for what was answered 202.
func (rec *recording) state(t *testing.T, model string, n int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	var ends []float64
	for i := range rec.ops {
		if strings.HasPrefix(rec.ops[i].what, "sync") {
			ends = append(ends, rec.ops[i].out)
		}
	}
	at := ends[rng.IntN(len(ends))] + []float64{1e-6, -1e-6, rng.Float64() / 100}[rng.IntN(3)]
	d := &cut{
		recording: rec, rng: rng, model: model, at: at, chance: []float64{0, 1, 0.5, 0.1, 0.9}[rng.IntN(5)],
		synced: map[string]float64{}, names: map[string]int{}, files: map[int][]byte{}, ended: map[int]bool{},
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := errors.Join(os.MkdirAll(dir, 0o700), d.build(dir)); err != nil {
		t.Fatal(err)
	}
	far := &recorder{}
	if err := drain(dir, far); err != nil {
		t.Errorf("state %d, cut at %f: %v", n, at, err)
		return
	}
	acked, sent, hash := map[string]int{}, map[string]int{}, map[string]string{}
	for _, s := range rec.seen {
		switch {
		case s.at >= at:
		case s.acked:
			acked[s.key] = max(acked[s.key], s.word+1)
		default:
			sent[s.key], hash[s.id] = max(sent[s.key], s.word+1), s.hash
		}
	}
	known := map[string]int{}
	for _, s := range far.got {
		was := max(known[s.key], sent[s.key])
		if h, again := hash[s.id]; again && h != s.hash {
			t.Errorf("state %d: %s %d goes out again with other bytes", n, s.key, s.word)
		}
		if s.word > was || s.word < known[s.key]-1 {
			t.Errorf("state %d: %s %d goes out when %d are known", n, s.key, s.word, was)
		}
		known[s.key] = max(was, s.word+1)
	}
	for key, want := range acked {
		if got := max(known[key], sent[key]); got < want {
			t.Errorf("state %d, chance %.1f: %d words of %s were answered 202, Callgoose knows %d", n, d.chance, want, key, got)
		}
	}
}

// drain runs the worker on a directory until nothing waits.
func drain(dir string, far http.RoundTripper) (err error) {
	log := slog.New(slog.DiscardHandler)
	l := &life{dir: dir}
	marker, err := l.open(false, nil, log)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.run(&settings{Concurrency: 4, RetryMin: time.Millisecond}, marker, far, nil, log); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(2 * time.Millisecond) {
		if idle, err := l.idle(); err != nil || idle {
			return err
		}
	}
	return errors.New("events still wait after a minute")
}
