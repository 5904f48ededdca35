package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// The colours of a terminal.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// screen is the file behind standard output, nil when it is not a file.
func (p *program) screen() *os.File {
	w := p.out
	if o, ok := w.(*outlet); ok {
		w = o.Writer
	}
	f, _ := w.(*os.File)
	return f
}

// paint colours s on a terminal, unless NO_COLOR is set or the terminal is dumb.
func (p *program) paint(colour, s string) string {
	if f := p.screen(); colour == "" || p.env("NO_COLOR") != "" || p.env("TERM") == "dumb" || f == nil || !isTerminal(f) {
		return s
	}
	return colour + s + plain
}

// width is how many characters a line may have: those of the terminal, 0 = any.
func (p *program) width() int {
	f := p.screen()
	if f == nil || !isTerminal(f) {
		return 0
	}
	if n, err := strconv.Atoi(p.env("COLUMNS")); err == nil && n > 0 {
		return n
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// cut shortens a line to width characters; 0 = not at all.
func cut(line string, width int) string {
	if width <= 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width-1]) + "…"
}

// words are those of a table that are told apart by colour.
var words = map[string]string{
	"dead": red, "FAIL": red, "held": red, "down": red, "discarded": yellow, "queued": yellow, "paused": yellow, "delivered": green, "up": green,
}

// colourCells paints cells of a line that are one of these words.
func (p *program) colourCells(line string, cells []string) string {
	for _, c := range cells {
		colour := words[strings.TrimSpace(c)]
		if i := strings.Index(line, " "+c+" "); colour != "" && i >= 0 {
			line = line[:i+1] + p.paint(colour, c) + line[i+1+len(c):]
		}
	}
	return line
}

// progress returns what shows how far a step is, and what wipes that away; on a
// terminal only.
func (p *program) progress() (show func(done, of int), end func()) {
	if !isTerminal(p.err) {
		return func(int, int) {}, func() {}
	}
	last := time.Time{}
	show = func(done, of int) {
		if time.Since(last) < 200*time.Millisecond {
			return
		}
		last = time.Now()
		const width = 30
		full := min(width*done/max(of, 1), width)
		fmt.Fprintf(p.err, "\r[%s%s] %d of %d ", strings.Repeat("#", full), strings.Repeat("-", width-full), done, of)
	}
	return show, func() { fmt.Fprint(p.err, "\r\x1b[K") }
}
