package worker

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

// modelSeeds are run by -model.all; the first three together reach what a campaign must reach.
var modelSeeds = []uint64{3, 8, 81, 1, 7, 15, 16, 24, 250}

var modelAll = flag.Bool("model.all", false, "run every seed of the lists, not the first ones alone")

// reached are the rare branches that a campaign must have gone through.
var reached = []string{
	"reopened", "suppressed:stale", "suppressed:late", "adopted", "again after a discard", "collapsed", "born claimed", "claimed anew",
	"probe of another key", "refused for itself", "rebuilt with events waiting", "queued again",
}

// TestModel runs days of a PMM and a Callgoose that do what they really do wrong, with
// crashes, lost ledgers and operators between them, against the oracle.
// PMM_CALLGOOSE_MODEL_RUNS makes so many runs, of seeds that nobody chose or from
// PMM_CALLGOOSE_MODEL_SEED on, which alone makes one run again: its days are the same, the
// turns of goroutines are not.
func TestModel(t *testing.T) {
	runModel(t, modelSeeds, 3, false, reached)
}

// stormSeeds are run with --storm.
var stormSeeds = []uint64{81, 1, 16}

// TestModelWithStorms holds the same days against the same oracle, with a brake that a
// few alerts set off.
func TestModelWithStorms(t *testing.T) {
	runModel(t, stormSeeds, 1, true, []string{"storms", "collapsed"})
}

func runModel(t *testing.T, seeds []uint64, few int, storms bool, reached []string) {
	did := &tally{n: map[string]int64{}}
	if !*modelAll {
		seeds = seeds[:few]
	}
	if testing.Short() { // the race detector makes each run ten times as long
		seeds = seeds[:1]
	}
	runs, _ := strconv.Atoi(os.Getenv("PMM_CALLGOOSE_MODEL_RUNS"))
	first, err := strconv.ParseUint(os.Getenv("PMM_CALLGOOSE_MODEL_SEED"), 10, 64)
	if err != nil {
		first = uint64(time.Now().UnixMilli())
	}
	if runs > 0 || err == nil {
		seeds = nil
		for n := range uint64(max(runs, 1)) {
			seeds = append(seeds, first+n)
		}
	}
	t.Run("seeds", func(t *testing.T) {
		for _, seed := range seeds {
			t.Run(fmt.Sprintf("%d", seed), func(t *testing.T) {
				t.Parallel()
				own := &tally{n: map[string]int64{}}
				modelRun(t, seed, storms, own)
				t.Logf("seed %d reached %q", seed, slices.DeleteFunc(slices.Clone(reached), func(what string) bool { return own.n[what] == 0 }))
				did.counts(own.n)
			})
		}
	})
	t.Logf("went through %v", did.n)
	for _, what := range reached {
		switch {
		case did.n[what] > 0 || len(seeds) <= 1:
		case runs > 0:
			t.Errorf("no run ever reached: %s", what)
		default: // the turns of goroutines differ from run to run: a campaign must reach it
			t.Logf("no run reached: %s", what)
		}
	}
}

// mask says which kinds of fault a run has. Each run has some.
type mask struct {
	PMM                                                  pmmFaults
	Outages, Refused, Discards, Crashes, Losses, Clock   bool
	Settings, Replays, Imports, Operators, Prunes, Guide bool
	ByName, Collapse, ShortRetry                         bool
}

func newMask(rng *rand.Rand) (m mask) {
	share := 1 + rng.IntN(4)
	for _, v := range []reflect.Value{reflect.ValueOf(&m).Elem(), reflect.ValueOf(&m.PMM).Elem()} {
		for _, f := range v.Fields() {
			if f.Kind() == reflect.Bool {
				f.SetBool(rng.IntN(4) < share && rng.IntN(2) == 0)
			}
		}
	}
	// What both places have lost nobody can know.
	m.Clock = m.Clock && !m.Prunes
	m.PMM.Slow = m.PMM.Slow && !m.Clock
	m.Imports = m.Imports && !m.Clock && !(m.Losses && m.Prunes)
	m.PMM.Disks = m.PMM.Disks && !m.Losses
	m.PMM.Trimmed = m.PMM.Trimmed && !m.Prunes
	m.Guide = m.Guide || m.ByName
	return m
}

func (m mask) String() string {
	b, _ := json.Marshal(m)
	var on []string
	for part := range strings.SplitSeq(strings.NewReplacer("{", "", "}", "", `"`, "", "PMM:", "").Replace(string(b)), ",") {
		if name, ok := strings.CutSuffix(part, ":true"); ok {
			on = append(on, name)
		}
	}
	return strings.Join(on, " ")
}

const (
	turns   = 250
	oneTurn = 20 * time.Second
)

// modelRun is one seed: hours in which things go wrong, and a calm hour.
func modelRun(t *testing.T, seed uint64, storms bool, did *tally) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0))
		m := newMask(rng)
		cfg := callgoosetest.Config{}
		if m.Guide {
			cfg.Filters = filters.Guide()
		}
		s := &sandbox{t: t, root: root, oracle: newOracle(), fake: callgoosetest.New(cfg), did: did, set: settings{
			From: "PerconaPMM", ByName: m.ByName, Collapse: m.Collapse, Concurrency: []int{1, 3, 16}[rng.IntN(3)],
			ResendAfter: []time.Duration{0, 0, time.Hour}[rng.IntN(3)], LateAfter: []time.Duration{0, time.Minute, 5 * time.Minute}[rng.IntN(3)],
		}}
		if storms {
			s.set.Storm = StormRule{Most: 2, Within: 3 * time.Minute}
		}
		if m.ShortRetry {
			s.set.RetryFor = 10 * time.Minute
		}
		if m.Prunes {
			s.set.Keep = 20 * time.Minute
		}
		s.far, s.oracle.byName, s.oracle.pair = s.fake.RoundTripper(), m.ByName, m.PMM.Pair
		s.vague = m.Operators || m.Discards || m.Refused || m.Outages
		s.oracle.vague = s.vague
		unsent := m.ShortRetry || m.Operators || m.Losses || m.Collapse || m.Settings || storms
		// What waits for the end of a storm can be taken out of the queue, by an operator or
		// because it recovers, and comes back when the ledger is lost within the minute: behind
		// what was sent meanwhile, whose recovery then goes out again, too.
		s.oracle.ordered = (!m.Replays || !unsent) && !(storms && m.Losses)
		s.oracle.orderedNames = !m.Replays && !unsent
		r := &run{sandbox: s, rng: rng, mask: m, pmm: newFakePMM(rng, m.PMM), claims: map[event.Position]time.Time{}}
		s.start(root + "/data")
		defer func() { s.halt(false) }()
		for r.turn = range turns {
			if r.step(false); r.turn%100 == 99 {
				r.settle()
				r.check(nil)
			}
			if r.failed() {
				break
			}
		}
		if !t.Failed() {
			r.end()
		}
		if r.failed() || t.Failed() {
			t.Logf("seed %d: %s, %+v", seed, m, s.set)
			t.Log(strings.Join(r.told, "\n"))
			if os.Getenv("PMM_CALLGOOSE_MODEL_SEED") != "" {
				t.Logf("%s", s.logs.String())
			}
		}
	})
}

// run makes the steps of a seed.
type run struct {
	*sandbox
	rng    *rand.Rand
	mask   mask
	pmm    *fakePMM
	turn   int
	told   []string
	claims map[event.Position]time.Time
	refs   []Ref    // chosen to be sent again, a while ago
	single []string // refused for themselves
	// Callgoose fails, or rejects all for ever.
	failing, rejects bool
}

func (r *run) tell(format string, args ...any) {
	r.told = append(r.told, fmt.Sprintf("%s %d ", time.Now().Format("15:04:05"), r.turn)+fmt.Sprintf(format, args...))
}

// failed reports, and tells, whether anything is wrong.
func (r *run) failed() bool {
	r.oracle.mu.Lock()
	defer r.oracle.mu.Unlock()
	for _, f := range r.oracle.faults {
		r.t.Error(f)
	}
	bad := len(r.oracle.faults) > 0
	r.oracle.faults = nil
	return bad
}

// step is one turn of PMM, and with luck something else.
func (r *run) step(calm bool) {
	time.Sleep(oneTurn - time.Duration(r.rng.Int64N(int64(2*time.Second))))
	for _, req := range r.pmm.turn(time.Now().UTC(), calm) {
		ok := r.deliver(req)
		if r.pmm.answered(req, ok); !ok {
			r.tell("not answered")
		}
		for _, m := range req.members {
			r.tell("%s %s starts %s ends %s finger %q, began %s", m.Status, m.Labels["alertname"]+" "+m.Labels["instance"]+m.Labels["disk"], m.StartsAt.Format("15:04:05"), m.EndsAt.Format("15:04:05"), m.Fingerprint, req.began.Format("15:04:05"))
		}
		if m := req.members[0]; m.Status == event.Resolved && m.Fingerprint == "" && ok {
			r.adopted()
		}
	}
	synctest.Wait()
	r.look()
	if !calm && !r.p.dead.Load() {
		r.act()
	}
	if r.p.dead.Load() {
		lose := r.mask.Losses && r.rng.IntN(2) == 0
		r.tell("it died, ledger lost %v", lose)
		r.restart(false, lose)
	}
	for _, key := range r.single {
		r.oracle.doubt(key)
	}
	if r.rejects || r.mask.ShortRetry && r.failing {
		r.oracle.doubt("")
	}
	synctest.Wait()
	if idle, err := r.p.idle(); err == nil && idle {
		r.check(nil)
	}
}

func (r *run) adopted() {
	synctest.Wait()
	_ = r.p.ledger.Each(event.Filter{}, func(rec *event.Record) bool {
		if rec.Facts.Adopted {
			r.did.count("adopted")
		}
		return !rec.Facts.Adopted
	})
}

// look sees how what waits was claimed.
func (r *run) look() {
	for _, w := range r.queued() {
		before, there := r.claims[w.At]
		switch {
		case w.ClaimedAt.IsZero():
			continue
		case w.ClaimedAt.Equal(w.QueuedAt):
			r.did.count("born claimed")
		case there && !before.Equal(w.ClaimedAt):
			r.did.count("claimed anew")
		}
		r.claims[w.At] = w.ClaimedAt
	}
}

// act does one of the things that the mask allows.
func (r *run) act() {
	does := func(allowed bool, one int) bool { return allowed && r.rng.IntN(one) == 0 }
	switch {
	case does(r.mask.Crashes, 20):
		r.p.fuse.Store(1 + r.rng.Int64N(30))
	case does(r.mask.Crashes, 40):
		r.tell("killed")
		r.restart(true, does(r.mask.Losses, 2))
	case does(r.mask.Settings, 30):
		r.settings()
	case does(r.mask.Clock, 40):
		step := []time.Duration{-time.Hour, 24 * time.Hour}[r.rng.IntN(2)]
		r.offset += step
		r.tell("the clock jumps by %s", step)
	case does(r.mask.Outages, 10):
		r.outage()
	case does(r.mask.Refused, 12):
		r.refuse()
	case does(r.mask.Discards, 15):
		r.discards()
	case does(r.mask.Replays, 12):
		r.replay()
	case does(r.mask.Imports, 25):
		r.imports()
	case does(r.mask.Operators, 12):
		r.operator()
	}
}

func (r *run) settings() {
	switch s, n := &r.set, r.rng.IntN(20); {
	case n < 6:
		s.From += "x"
	case n < 12:
		s.Collapse = !s.Collapse
	case n < 17 || !r.mask.Guide: // Callgoose tells incidents by name, or has one for each key
		s.LateAfter = time.Duration(r.rng.IntN(3)) * time.Minute
	default:
		s.ByName, r.oracle.mixed = !s.ByName, true
	}
	r.tell("restart with %+v", r.set)
	r.restart(r.rng.IntN(2) == 0, false)
}

// failures are what Callgoose does to all, and, but for the first, to one.
var failures = []callgoosetest.Failure{
	{Mode: callgoosetest.Status, Status: 503, RetryAfter: "90"},
	{Mode: callgoosetest.Status, Status: 400},
	{Mode: callgoosetest.Status, Status: 403},
	{Mode: callgoosetest.Status, Status: 404},
	{Mode: callgoosetest.Status, Status: 409},
	{Mode: callgoosetest.Status, Status: 500},
	{Mode: callgoosetest.Hang},
	{Mode: callgoosetest.Reset},
	{Mode: callgoosetest.Status, Status: 200, ContentType: "text/html", Body: "<html>a portal</html>"},
	{Mode: callgoosetest.LoseReply},
	{Mode: callgoosetest.Slow, Delay: 3 * time.Second},
	{Mode: callgoosetest.Status, Status: http.StatusTooManyRequests, RetryAfter: "5"},
	{Mode: callgoosetest.Status, Status: 401},
}

func (r *run) outage() {
	f := failures[r.rng.IntN(len(failures))]
	switch r.rng.IntN(4) {
	case 0:
		f = callgoosetest.Failure{}
		fallthrough
	case 1:
		r.away.Store(false)
	case 2:
		r.away.Store(true)
	}
	if r.rejects || r.mask.ShortRetry { // it may have been given up
		r.oracle.doubt("")
	}
	r.rejects, r.failing = f.Status == 400, f.Mode != "" || r.away.Load()
	r.tell("callgoose: %+v", f)
	r.fake.Fail(f)
}

// refuse makes Callgoose refuse one alert, or no one any more.
func (r *run) refuse() {
	if len(r.single) > 0 && r.rng.IntN(8) > 0 {
		return
	}
	if len(r.single) > 0 {
		r.accept()
		return
	}
	key := r.pmm.rules[r.rng.IntN(len(r.pmm.rules))].key()
	f := failures[1+r.rng.IntN(8)]
	if r.rng.IntN(2) == 0 {
		f = failures[2+r.rng.IntN(3)] // it is given up after ten of these
	}
	r.single = append(r.single, key)
	r.tell("callgoose refuses %s: %+v", key, f)
	r.fake.FailMatching(callgoosetest.Match{Key: key}, f)
}

func (r *run) accept() {
	for _, key := range r.single {
		r.tell("callgoose accepts %s", key)
		r.fake.FailMatching(callgoosetest.Match{Key: key}, callgoosetest.Failure{})
		r.oracle.doubt(key)
	}
	r.single = nil
}

func (r *run) discards() {
	r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 202, ContentType: "application/json", Body: `{"id":"1"}`, Count: 1 + r.rng.IntN(4)})
	r.tell("callgoose discards")
	time.Sleep(time.Duration(r.rng.IntN(100)) * time.Second)
	r.fake.Fail(callgoosetest.Failure{})
	r.oracle.doubt("")
}

// replay chooses what to send again, or sends what was chosen.
func (r *run) replay() {
	if r.refs != nil {
		r.oracle.ask()
		queued, err := r.p.splitter.Requeue(r.p.ctx, r.refs, false)
		if err != nil && !r.p.dead.Load() {
			r.t.Errorf("queue again: %v", err)
		}
		r.tell("%d of %d are queued again", len(queued), len(r.refs))
		r.did.counts(map[string]int64{"queued again": int64(len(queued))})
		r.refs = nil
		return
	}
	first, err := r.p.queue.First(r.p.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	f := event.Filter{}
	if r.rng.IntN(2) == 0 {
		f.Outcomes = []event.Outcome{event.Discarded, event.Dead, event.Unknown, event.Collapsed}
	}
	if err := r.p.ledger.View(func(tx *store.Tx) {
		r.refs = Choose(tx, f, Rules{First: first, Limit: 1 + r.rng.IntN(40)}, func(*event.Record) {}).Refs
	}); err != nil {
		r.t.Fatal(err)
	}
	r.tell("%d are chosen to be sent again", len(r.refs))
}

// imports hands over again what was accepted, as another forwarder would.
func (r *run) imports() {
	r.oracle.ask()
	end := len(r.notes)
	for end > 0 && time.Since(r.notes[end-1].ReceivedAt) < 5*time.Minute {
		end--
	}
	for _, n := range r.notes[max(0, end-r.rng.IntN(40)):end] {
		n.Origin = event.Imported
		if !r.p.publish(n) {
			return
		}
	}
	r.tell("import")
}

// operator takes a queued event out of the queue, drops a dead letter, closes an incident,
// or holds delivery.
func (r *run) operator() {
	key := r.pmm.rules[r.rng.IntN(len(r.pmm.rules))].key()
	var err error
	what := []string{"park", "drop", "close", "pause", "resume"}[r.rng.IntN(5)]
	switch what {
	case "close":
		var n event.Notification
		if r.p.ledger.View(func(tx *store.Tx) { n = CloseBody(tx, key, time.Now().UTC().Add(r.offset)) }) != nil {
			return
		}
		now := time.Now().UTC()
		w := r.oracle.say(key, "", word{status: event.Resolved, ends: now, began: now, whole: now})
		n.Body = []byte(strings.Replace(string(n.Body), `"annotations":{`, fmt.Sprintf(`"annotations":{"word":"%d",`, w), 1))
		r.p.publish(n)
	case "pause", "resume":
		err = r.p.ledger.Do(r.p.ctx, func(tx *store.Tx) {
			tx.SetPause(map[bool]*store.Pause{true: {Since: time.Now(), Reason: "maintenance"}}[what == "pause"])
		})
		r.p.deliverer.Kick()
	default:
		err = r.p.ledger.Do(r.p.ctx, func(tx *store.Tx) {
			for rec := range tx.Records(event.Filter{}) {
				switch {
				case what == "park" && rec.Outcome == event.Queued:
					Park(tx, rec, "parked")
				case what == "drop" && rec.Outcome == event.Dead && rec.IsEvent():
					Forget(tx, rec)
				default:
					continue
				}
				key = rec.Key
				return
			}
		})
	}
	if err != nil && !r.p.dead.Load() {
		r.t.Errorf("%s: %v", what, err)
	}
	r.tell("an operator: %s %s", what, key)
	if what == "park" || what == "drop" {
		r.oracle.doubt(key)
	}
}

// settle ends what is wrong, but for PMM, and waits until nothing waits.
func (r *run) settle() {
	r.p.fuse.Store(0)
	if r.p.dead.Load() {
		r.restart(false, false)
	}
	r.accept()
	r.fake.Fail(callgoosetest.Failure{})
	r.away.Store(false)
	if r.rejects || r.mask.ShortRetry {
		r.oracle.doubt("")
	}
	r.rejects, r.failing = false, false
	if err := r.p.ledger.Do(r.p.ctx, func(tx *store.Tx) { tx.SetPause(nil) }); err != nil {
		r.t.Fatal(err)
	}
	r.p.deliverer.Kick()
	r.tell("all is well")
	for began := time.Now(); ; time.Sleep(5 * time.Second) {
		synctest.Wait()
		r.look()
		if idle, err := r.p.idle(); err != nil || idle {
			return
		}
		if time.Since(began) > time.Hour {
			r.t.Errorf("%d events still wait, %+v", len(r.queued()), r.p.deliverer.View().Circuit)
			return
		}
	}
}

// check holds what is open against what PMM said. With a clock that jumps it is right
// only once everything was repeated.
func (r *run) check(fires map[string]bool) {
	if !r.mask.Clock || fires != nil {
		r.oracle.check(r.fake, fires)
	}
}

// end is an hour in which nothing changes.
func (r *run) end() {
	r.settle()
	for range int(repeatInterval/oneTurn)*3/2 + 10 {
		r.step(true)
	}
	r.settle()
	fires := map[string]bool{}
	for _, rule := range r.pmm.rules {
		if rule.on() {
			fires[rule.key()] = true
		}
	}
	r.check(fires)
	told := true // Callgoose took all that was said of storms
	_ = r.p.ledger.Each(event.Filter{}, func(rec *event.Record) bool {
		told = told && (!strings.HasPrefix(rec.Alertname, "Storm: ") || rec.Outcome == event.Delivered)
		return true
	})
	for key, open := range r.fake.OpenByKey() {
		if told && strings.Contains(open[0].Title, " - Storm: ") {
			r.t.Errorf("the incident of a storm is left open: %s %s", key, open[0].Title)
		}
	}
	r.records()
}

// records looks whether everything accepted became something.
func (r *run) records() {
	_ = r.p.ledger.Each(event.Filter{}, func(rec *event.Record) bool {
		if strings.HasPrefix(rec.Reason, "refused for itself") {
			r.did.count("refused for itself")
		}
		if e := r.oracle.events[rec.ID]; rec.Outcome == event.Delivered && !r.mask.Operators && (e == nil || !e.accepted) {
			r.t.Errorf("%s %s %s is said to be delivered, and callgoose never took it", rec.Key, rec.Status, rec.ID)
		}
		return true
	})
	if r.mask.Prunes || r.mask.Operators || r.mask.Clock { // days go with their records
		return
	}
	known, again := map[event.Position]bool{}, map[string]event.Position{}
	_ = r.p.ledger.Each(event.Filter{}, func(rec *event.Record) bool {
		if known[rec.Pos] = true; rec.At.Compare(again[rec.Key]) > 0 {
			again[rec.Key] = rec.At
		}
		return true
	})
	for seq := uint64(1); seq <= r.p.queue.Last(); seq++ {
		list, err := r.p.queue.Read(r.p.ctx, seq)
		if err != nil {
			r.t.Errorf("message %d: %v", seq, err)
		}
		for i, n := range list {
			for _, c := range split(n, event.Position{Seq: seq, Note: uint32(i)}).members {
				// What was trimmed may belong to another key.
				if c.again == nil && !known[c.pos] && (c.alert == nil || c.alert.Fingerprint != "") && again[c.identity()].Compare(c.pos) < 0 { // else it made an event go out again
					r.t.Errorf("nothing is known of the alert at %v", c.pos)
				}
			}
		}
	}
	r.stored()
}

// stored looks whether all that was answered 202 is in the stream.
func (r *run) stored() {
	have := map[string]bool{}
	for seq := uint64(1); seq <= r.p.queue.Last(); seq++ {
		list, _ := r.p.queue.Read(r.p.ctx, seq)
		for _, n := range list {
			have[string(n.Body)] = true
		}
	}
	if i := slices.IndexFunc(r.notes, func(n event.Notification) bool { return !have[string(n.Body)] }); i >= 0 {
		r.t.Errorf("%s was answered 202 and is gone", r.notes[i].Body)
	}
}
