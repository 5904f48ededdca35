package web

import (
	"fmt"
	"slices"
	"time"

	"pmm-callgoose/store/event"
)

// The plot is drawn here, as SVG: bars above the line for what came in, below
// for what left. Its text stands beside it in HTML, so that it does not shrink
// on a phone.
const (
	plotWidth  = 720
	plotHalf   = 60 // above the line; the same below
	plotHeight = 2*plotHalf + 1
)

// plotBars is how many bars a picture has: whole minutes each, since that is how
// things are counted.
func plotBars(hours int) int {
	if hours == 1 {
		return 60
	}
	return 72
}

// plot is one picture of the history.
type plot struct {
	Hours   int
	Choices []int
	Bars    []bar
	Width   int
	Height  int
	Line    int
	Most    int64
	Every   time.Duration // one bar
	Each    time.Duration // one row of the table
	Total   event.Minute
	Times   []time.Time    // along the axis
	Rows    []event.Minute // of the table: hours in which something happened, newest first
	Shades  []shade
}

// shade is a time in which nobody was called.
type shade struct {
	event.Outage
	X, W   int
	Lasted time.Duration
}

// bar is what one stretch of time looks like: heights are never 0 where there was something.
type bar struct {
	event.Minute
	X, W         int
	InY, InH     int
	OutY, OutH   int
	LostY, LostH int // discarded
	DeadY, DeadH int
	Text         string
}

var plotHours = []int{1, 6, 24, 168}

func newPlot(minutes []event.Minute, outages []event.Outage, hours int, now time.Time) plot {
	n := plotBars(hours)
	p := plot{
		Hours: hours, Choices: plotHours, Width: plotWidth, Height: plotHeight, Line: plotHalf, Most: 1,
		Every: time.Duration(hours) * time.Hour / time.Duration(n),
	}
	// Bars begin at round times, so that they do not flicker; the last one is
	// not over yet.
	end := now.UTC().Truncate(p.Every).Add(p.Every)
	begin := end.Add(-time.Duration(n) * p.Every)
	p.Bars = make([]bar, n)
	p.Each = max(time.Hour, p.Every)
	for _, m := range minutes {
		i := int(m.At.Sub(begin) / p.Every)
		if m.At.Before(begin) || i >= n {
			continue
		}
		p.Bars[i].Add(m)
		p.Total.Add(m)
		hour := m.At.Truncate(p.Each)
		if k := len(p.Rows); k == 0 || !p.Rows[k-1].At.Equal(hour) {
			p.Rows = append(p.Rows, event.Minute{At: hour})
		}
		p.Rows[len(p.Rows)-1].Add(m)
	}
	slices.Reverse(p.Rows)
	p.draw(begin)
	for _, o := range outages {
		p.shade(o, begin, end, now)
	}
	for i := range 5 {
		p.Times = append(p.Times, begin.Add(time.Duration(i)*end.Sub(begin)/4))
	}
	return p
}

// Half is what the axis says half way up.
func (p plot) Half() int64 { return p.Most / 2 }

// draw gives the bars their places.
func (p *plot) draw(begin time.Time) {
	n := len(p.Bars)
	for _, b := range p.Bars {
		p.Most = max(p.Most, b.In, b.Out+b.Discarded+b.Dead)
	}
	p.Most += p.Most % 2 // the axis says half of it, too
	height := func(n int64) int {
		if n == 0 {
			return 0
		}
		return max(2, int(n*(plotHalf-2)/p.Most))
	}
	for i := range p.Bars {
		b := &p.Bars[i]
		b.At = begin.Add(time.Duration(i) * p.Every)
		b.X, b.W = i*plotWidth/n+1, plotWidth/n-2
		b.InH, b.OutH, b.LostH, b.DeadH = height(b.In), height(b.Out), height(b.Discarded), height(b.Dead)
		b.InY, b.OutY = plotHalf-b.InH, plotHalf+1
		b.LostY = b.OutY + b.OutH
		b.DeadY = b.LostY + b.LostH
		b.Text = fmt.Sprintf("%sZ: %d in, %d out, %d discarded, %d dead", b.At.Format("Jan 2 15:04"), b.In, b.Out, b.Discarded, b.Dead)
	}
}

// shade adds what of an outage is in the picture, at least two units wide.
func (p *plot) shade(o event.Outage, begin, end, now time.Time) {
	until := o.Until
	if until.IsZero() {
		until = now
	}
	if until.Before(begin) || o.From.After(end) {
		return
	}
	x := func(t time.Time) int {
		return int(min(max(t.Sub(begin), 0), end.Sub(begin)) * plotWidth / end.Sub(begin))
	}
	s := shade{Outage: o, X: x(o.From), Lasted: until.Sub(o.From)}
	s.W = max(2, x(until)-s.X)
	p.Shades = append(p.Shades, s)
}
