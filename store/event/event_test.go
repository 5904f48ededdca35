package event

import (
	"math"
	"slices"
	"strconv"
	"testing"
	"time"
)

// inOrder are positions in order of arrival.
var inOrder = []Position{
	{},
	{0, 0, 1},
	{0, 0, math.MaxUint32},
	{0, 1, 0},
	{0, math.MaxUint32, 0},
	{1, 0, 0},
	{1, 0, 255},
	{1, 0, 256},
	{1, 255, 9},
	{1, 256, 0},
	{255, math.MaxUint32, math.MaxUint32},
	{256, 0, 0},
	{1 << 32, 0, 0},
	{math.MaxUint64, math.MaxUint32, math.MaxUint32},
}

func TestPositionsSortByArrival(t *testing.T) {
	for i, a := range inOrder {
		for j, b := range inOrder {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("%v.Compare(%v) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestNotificationIDs(t *testing.T) {
	if got, want := (Position{Seq: 1042, Note: 3, Item: 7}).NotificationID(), "n1042.3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAddAttemptKeepsTheFirstAndTheLatest(t *testing.T) {
	var r Record
	const total = keepAttempts + 100
	for i := 1; i <= total; i++ {
		r.AddAttempt(Attempt{Status: i, Error: "try " + strconv.Itoa(i)})
		if r.Tries != i || len(r.Attempts) != min(i, keepAttempts) {
			t.Fatalf("after %d: %d tries, %d kept", i, r.Tries, len(r.Attempts))
		}
		if r.Attempts[0].Status != 1 {
			t.Fatalf("after %d: the first is gone", i)
		}
		if r.LastError != "try "+strconv.Itoa(i) {
			t.Fatalf("after %d: last error %q", i, r.LastError)
		}
		for j, a := range r.Attempts[1:] {
			if want := i - len(r.Attempts) + 2 + j; a.Status != want {
				t.Fatalf("after %d: place %d holds %d, want %d", i, j+1, a.Status, want)
			}
		}
	}
}

func TestAddAttemptRemembersCallgoosesIDAndTheLatestError(t *testing.T) {
	var r Record
	r.AddAttempt(Attempt{Error: "no answer in time"})
	r.AddAttempt(Attempt{ID: "c1"})
	if r.CallgooseID != "c1" || r.LastError != "" {
		t.Errorf("after success: id %q, last error %q", r.CallgooseID, r.LastError)
	}
	r.AddAttempt(Attempt{Error: "again"})
	if r.CallgooseID != "c1" || r.LastError != "again" {
		t.Errorf("after a later failure: id %q, last error %q", r.CallgooseID, r.LastError)
	}
}

func TestOutcomesListsEachOnce(t *testing.T) {
	want := []Outcome{"queued", "delivered", "discarded", "dead", "suppressed", "collapsed", "unknown"}
	if !slices.Equal(Outcomes, want) {
		t.Errorf("%v, want %v", Outcomes, want)
	}
}

func TestFilter(t *testing.T) {
	at := time.Date(2025, 11, 26, 9, 12, 0, 0, time.UTC)
	r := &Record{
		ID: "a", Key: "pmm-1", Status: Firing, ReceivedAt: at, Pos: Position{5, 1, 0}, Outcome: Dead,
		Labels: map[string]string{"alertname": "MySQL Down", "empty": ""},
	}
	for _, c := range []struct {
		name string
		f    Filter
		want bool
	}{
		{"the zero value chooses all", Filter{}, true},
		{"since is inclusive", Filter{Since: at}, true},
		{"since later", Filter{Since: at.Add(1)}, false},
		{"until is exclusive", Filter{Until: at}, false},
		{"until later", Filter{Until: at.Add(1)}, true},
		{"status", Filter{Status: Firing}, true},
		{"another status", Filter{Status: Resolved}, false},
		{"one of the outcomes", Filter{Outcomes: []Outcome{Queued, Dead}}, true},
		{"none of the outcomes", Filter{Outcomes: []Outcome{Queued}}, false},
		{"label", Filter{Labels: map[string]string{"alertname": "MySQL Down"}}, true},
		{"another value", Filter{Labels: map[string]string{"alertname": "MySQL"}}, false},
		{"an empty label that is there", Filter{Labels: map[string]string{"empty": ""}}, true},
		{"an empty label that is not there", Filter{Labels: map[string]string{"gone": ""}}, false},
		{"every label must match", Filter{Labels: map[string]string{"alertname": "MySQL Down", "x": "y"}}, false},
		{"incident", Filter{Incident: "pmm-1"}, true},
		{"another incident", Filter{Incident: "pmm-2"}, false},
		{"id", Filter{IDs: []string{"b", "a"}}, true},
		{"another id", Filter{IDs: []string{"b"}}, false},
		{"after what came before", Filter{After: Position{5, 0, 9}}, true},
		{"after itself", Filter{After: Position{5, 1, 0}}, false},
		{"all conditions must hold", Filter{Status: Firing, Outcomes: []Outcome{Dead}, IDs: []string{"b"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.f.Match(r); got != c.want {
				t.Errorf("Match = %v, want %v", got, c.want)
			}
		})
	}
}
