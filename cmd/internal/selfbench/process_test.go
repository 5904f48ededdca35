package selfbench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

// Process is a forwarder in a process of its own.
type Process struct {
	URL    string        // of the intake
	Open   time.Duration // from the start to its port being open; 0 when the port was not known before
	Ready  time.Duration // from the start to its line: the store is open, too
	Status *admin.Client
	cmd    *exec.Cmd
	pid    int // of serve itself
	log    *os.File
}

// Start runs serve of the program with these further flags, everything in dir,
// and waits until it is ready. The program is its path, perhaps with a tracer and
// its arguments in front. It takes webhooks at the address listen.
func Start(ctx context.Context, program []string, dir, listen string, flags ...string) (*Process, error) {
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Args = append(append(cmd.Args, "serve", "--data-dir", data, "--listen", listen, "--admin-listen", "off"), flags...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PMM_CALLGOOSE_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env,
		"PMM_CALLGOOSE_CALLGOOSE_TOKEN=bench", // the sink takes any
		"CONFIGURATION_DIRECTORY="+dir)        // not that of this machine's service
	log, err := os.OpenFile(filepath.Join(dir, "serve.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, log: log, Status: admin.NewSocketClient(data)}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("start serve: %w", err)
	}
	open := make(chan time.Duration, 1)
	polling, stop := context.WithCancel(ctx)
	go func() { open <- openAfter(polling, listen, began) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	p.Ready = time.Since(began)
	stop()
	p.Open = <-open
	if err != nil {
		_ = cmd.Wait()
		_ = log.Close()
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("serve ended before it was ready: %s", text[max(0, len(text)-500):])
	}
	for part := range strings.FieldsSeq(strings.ReplaceAll(line, ",", " ")) {
		if strings.HasSuffix(part, "/v1/webhook") {
			p.URL = part + "/bench"
		}
	}
	p.pid = cmd.Process.Pid
	if len(program) > 1 { // behind a tracer: its one child
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.pid, p.pid))
		if err == nil {
			_, err = fmt.Sscan(string(children), &p.pid)
		}
		if err != nil {
			return nil, fmt.Errorf("find serve behind %s: %w", program[0], err)
		}
	}
	return p, nil
}

// openAfter is how long after began a port could be connected to, 0 when it is any port.
func openAfter(ctx context.Context, addr string, began time.Time) time.Duration {
	if strings.HasSuffix(addr, ":0") {
		return 0
	}
	for ctx.Err() == nil {
		if c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr); err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// Kill is kill -9.
func (p *Process) Kill() {
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	_ = p.cmd.Wait()
	_ = p.log.Close()
}

// Stop ends it in order, within 20 s.
func (p *Process) Stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = syscall.Kill(p.pid, syscall.SIGINT)
	end := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(p.pid, syscall.SIGKILL) })
	defer end.Stop()
	_ = p.cmd.Wait()
	_ = p.log.Close()
}

// Usage is what the process took so far, as Linux counts it; all zero elsewhere.
type Usage struct {
	Resident int64   `json:"resident_bytes"`
	Peak     int64   `json:"peak_resident_bytes"`
	Own      int64   `json:"anonymous_bytes"` // resident, without pages of files
	CPU      float64 `json:"cpu_seconds"`
	Written  int64   `json:"written_bytes"` // to the disk
}

// Usage reads it.
func (p *Process) Usage() (u Usage) {
	proc := fmt.Sprintf("/proc/%d/", p.pid)
	u.Resident, u.Peak = field(proc+"status", "VmRSS:")<<10, field(proc+"status", "VmHWM:")<<10
	u.Own = field(proc+"status", "RssAnon:") << 10
	u.Written = field(proc+"io", "write_bytes:")
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return u
	}
	// Behind the name, which may hold anything: state, and twelfth and thirteenth
	// after it the ticks in user and system mode, a hundredth of a second each.
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) > 12 {
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		u.CPU = float64(user+system) / 100
	}
	return u
}

// ForgetPeak makes Usage tell the peak from now on. At a start bbolt looks at each
// page of its file once, and all of them count as resident for that moment.
func (p *Process) ForgetPeak() {
	// See proc_pid_clear_refs(5). Where it cannot be done, the peak includes the start.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)
}

// field is the number behind a word in a file of /proc, 0 when it is not there.
func field(path, word string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut("\n"+string(text), "\n"+word)
	if f := strings.Fields(rest); len(f) > 0 {
		n, _ := strconv.ParseInt(f[0], 10, 64)
		return n
	}
	return 0
}
