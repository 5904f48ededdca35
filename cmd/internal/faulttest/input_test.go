package faulttest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

const smallBody = 256 << 10 // --max-body of this test

// say sends bytes as they are and returns the codes of the answers, -1 for a
// connection that was closed without one.
func say(t *testing.T, addr string, raw []byte, then func(*net.TCPConn)) (codes []int) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	go func() {
		_, _ = c.Write(raw)
		if then != nil {
			then(c.(*net.TCPConn))
		}
	}()
	in := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("neither an answer nor an end within %s", patience)
			}
			if len(codes) == 0 {
				codes = []int{-1}
			}
			return codes
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusContinue {
			codes = append(codes, resp.StatusCode)
		}
		if resp.Close {
			return codes
		}
	}
}

func request(headers, body string) []byte {
	return fmt.Appendf(nil, "POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s", len(body), headers, body)
}

// last is a request behind which the connection ends.
func last(body string) []byte { return request("Connection: close\r\n", body) }

func one(inside string) string {
	return `{"alerts":[{"status":"firing","labels":{"alertname":"Input","instance":"db-1"` + inside + `}}]}`
}

// Whatever comes in, the answer is clear, the process stays, and what it
// accepted arrives.
func TestBadInputIsAnsweredAndSurvived(t *testing.T) {
	t.Parallel()
	r := newRig(t, "--max-body", strconv.Itoa(smallBody))
	r.start()
	hook, err := url.Parse(*r.url.Load())
	if err != nil {
		t.Fatal(err)
	}
	pad := func(size int) string { b := one(""); return b + strings.Repeat(" ", size-len(b)) }
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	half := func(c *net.TCPConn) { _ = c.CloseWrite() }
	long := number(t, "PMM_CALLGOOSE_FAULT_CONNS", 0) > 0
	cases := map[string]struct {
		raw  []byte
		then func(*net.TCPConn)
		want []int // any of these; several answers: all of them
	}{
		"a good one":                          {last(one("")), nil, []int{202}},
		"a body of the limit":                 {last(pad(smallBody)), nil, []int{202}},
		"one byte more":                       {last(pad(smallBody + 1)), nil, []int{413}},
		"a promise of a terabyte":             {[]byte("POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1099511627776\r\n\r\n{"), nil, []int{413}},
		"a negative length":                   {[]byte("POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}"), nil, []int{400}},
		"two lengths":                         {[]byte("POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), nil, []int{400}},
		"length and chunks":                   {[]byte("POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), half, []int{400}},
		"nothing":                             {last(""), nil, []int{400}},
		"no JSON":                             {last("alerts"), nil, []int{400}},
		"an array":                            {last("[]"), nil, []int{400}},
		"null":                                {last("null"), nil, []int{400}},
		"two values":                          {last(one("") + one("")), nil, []int{400}},
		"no alerts":                           {last(`{"version":"1"}`), nil, []int{400}},
		"alerts of no use":                    {last(`{"alerts":[1,null,"x",{}]}`), nil, []int{400}},
		"one of use":                          {last(`{"alerts":[1,null,"x",{},` + one("")[11:]), nil, []int{202}},
		"nested 100,000 deep":                 {last(`{"x":` + nest(100_000) + `,` + one("")[1:]), nil, []int{202, 400}},
		"an alert nested 100,000 deep":        {last(`{"alerts":[` + nest(100_000) + `]}`), nil, []int{400}},
		"a label nested 100,000 deep":         {last(one(`,"x":` + nest(100_000))), nil, []int{202, 400}},
		"opened and never closed":             {last(strings.Repeat(`{"alerts":[`, 20_000)), nil, []int{400}},
		"invalid UTF-8":                       {last(one(",\"x\":\"\xff\xfe\xc0\"")), nil, []int{202, 400}},
		"half a surrogate":                    {last(one(`,"x":"\ud800"`)), nil, []int{202, 400}},
		"NUL and controls":                    {last(one(`,"x":"\u0000\u0001\r\n"`)), nil, []int{202}},
		"raw controls":                        {last(one(",\"x\":\"\x00\x01\"")), nil, []int{400}},
		"a name twice":                        {last(`{"alerts":[],` + one("")[1:]), nil, []int{202, 400}},
		"a label twice":                       {last(one(`,"instance":"db-2","instance":"db-3"`)), nil, []int{202}},
		"a huge label":                        {last(one(`,"x":"` + strings.Repeat("x", smallBody-200) + `"`)), nil, []int{202}},
		"a huge label of quotes":              {last(one(`,"x":"` + strings.Repeat(`\"`, smallBody/2-200) + `"`)), nil, []int{202}},
		"5,000 labels":                        {last(one(strings.Repeat(`,"x":"1"`, 5000))), nil, []int{202}},
		"4,000 alerts":                        {last(`{"alerts":[` + strings.TrimSuffix(strings.Repeat(`{"status":"firing","labels":{"alertname":"Many"}},`, 4000), ",") + `]}`), nil, []int{202}},
		"an absurd number":                    {last(one(`,"x":1e999999`)), nil, []int{202, 400}},
		"a fingerprint that is a path":        {last(strings.Replace(one(""), `"status"`, `"fingerprint":"../../.*.>","status"`, 1)), nil, []int{202}},
		"a time that is none":                 {last(strings.Replace(one(""), `"status"`, `"startsAt":"yesterday","status"`, 1)), nil, []int{202, 400}},
		"packed":                              {request("Connection: close\r\nContent-Encoding: gzip\r\n", "\x1f\x8b\x08"), nil, []int{415}},
		"another method":                      {[]byte("DELETE /v1/webhook HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), nil, []int{405}},
		"a path that climbs":                  {[]byte("POST /v1/webhook/../../etc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), nil, []int{404}},
		"a header without end":                {[]byte("POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10)), nil, []int{431}},
		"another protocol":                    {[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), half, []int{-1, 400}},
		"HTTP/2 without asking":               {[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), half, []int{-1, 400, 404, 405, 505}},
		"chunks without end":                  {[]byte("POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"), endless, []int{-1, 413}},
		"a chunk of a bad size":               {[]byte("POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), nil, []int{400}},
		"an upload cut off":                   {request("", one(""))[:90], func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }, []int{-1}},
		"half closed in the middle":           {request("", one(""))[:90], half, []int{-1, 400}},
		"half closed at the end":              {request("", one("")), half, []int{202}},
		"three in a row without waiting":      {slices.Concat(request("", one("")), request("", one("")), last(one(""))), nil, []int{202, 202, 202}},
		"a good one with a bad one behind it": {slices.Concat(request("", one("")), []byte("garbage\r\n\r\n")), half, []int{202, 400}},
		"asked before sending":                {request("Expect: 100-continue\r\nConnection: close\r\n", one("")), nil, []int{202}},
		"a header that never ends":            {[]byte("POST /v1/webhook HTTP/1.1\r\nHost: localhost\r\n"), nil, []int{-1, 408}}, // 5 s
	}
	if long { // 30 s
		cases["a body that never ends"] = struct {
			raw  []byte
			then func(*net.TCPConn)
			want []int
		}{request("", one(""))[:90], nil, []int{408}}
	}
	var wg sync.WaitGroup
	for name, c := range cases {
		wg.Go(func() {
			got := say(t, hook.Host, c.raw, c.then)
			if !slices.Equal(got, c.want) && (len(got) != 1 || !slices.Contains(c.want, got[0])) {
				t.Errorf("%s: answered %v, want %v", name, got, c.want)
			}
		})
	}
	wg.Wait()
	r.idleConnections(hook.Host)
	if got := say(t, hook.Host, last(one("")), nil); !slices.Equal(got, []int{202}) {
		t.Errorf("afterwards a good one is answered %v", got)
	}
	r.until("settled", func(s admin.Status) bool { return s.Queued == 0 && s.InFlight == 0 })
	r.stop()
	if log, _ := os.ReadFile(r.logPath()); bytes.Contains(log, []byte("panic")) {
		t.Errorf("something panicked:\n%.2000s", log[bytes.Index(log, []byte("panic")):])
	}
}

// endless sends chunks until nobody takes them.
func endless(c *net.TCPConn) {
	chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", 16<<10, strings.Repeat(" ", 16<<10))
	for {
		if _, err := c.Write(chunk); err != nil {
			return
		}
	}
}

// idleConnections opens many and says nothing on them: each costs a little
// memory, none keeps others out.
func (r *rig) idleConnections(addr string) {
	r.t.Helper()
	n := number(r.t, "PMM_CALLGOOSE_FAULT_CONNS", 500)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(2*n) {
		if n = int(limit.Cur / 2); n < 500 {
			r.t.Logf("only %d connections: the limit of open files is %d", n, limit.Cur)
		}
	}
	before := r.resident()
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			r.t.Errorf("connection %d: %v", len(conns)+1, err)
			return
		}
		conns = append(conns, c)
	}
	if got := say(r.t, addr, last(one("")), nil); !slices.Equal(got, []int{202}) {
		r.t.Errorf("beside %d idle connections a webhook is answered %v", n, got)
	}
	after := r.resident()
	r.t.Logf("%d idle connections: resident memory from %d to %d KiB", n, before>>10, after>>10)
	if grown := after - before; grown > 32<<20+int64(n)*40<<10 {
		r.t.Errorf("%d idle connections cost %d bytes", n, grown)
	}
}

// resident is the resident memory of the process.
func (r *rig) resident() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.cmd.Process.Pid))
	if err != nil {
		r.t.Skipf("no /proc here: %v", err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		r.t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
