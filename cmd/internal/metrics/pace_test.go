package metrics

import (
	"testing"
	"time"
)

func TestAPaceTellsWhatHappensInASecondAtPresent(t *testing.T) {
	var p pace
	now := time.Now()
	if got := p.rate(now); got != 0 {
		t.Errorf("where nothing happened the pace is %v", got)
	}
	for range 30 * 20 { // 20 a second, for half a minute
		now = now.Add(time.Second / 20)
		p.add(now)
	}
	if got := p.rate(now); got < 19 || got > 21 {
		t.Errorf("of 20 a second the pace is %v", got)
	}
	if got := p.rate(now.Add(time.Minute)); got > 0.01 {
		t.Errorf("a minute after the last the pace is %v", got)
	}
}
