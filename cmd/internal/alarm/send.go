package alarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"pmm-callgoose/ingest/outbound"
)

// Way is one way to reach people. Its errors hold no secret.
type Way struct {
	Name string // webhook or command
	// Send hands over JSON: as the body of the webhook, or on the standard input of the
	// command, which has vars in its environment, with nothing in them that ends a quotation
	// or does something in it.
	Send func(ctx context.Context, body []byte, vars ...string) error
}

const hookTimeout = 10 * time.Second

// Ways are those that are set: a URL as in NewHook, nil or "" = none, and a line of the
// shell, "" = none, which is killed after within.
func Ways(url func() string, transport http.RoundTripper, line string, within time.Duration) (list []Way) {
	if url != nil && url() != "" {
		hook := NewHook(url, transport, hookTimeout)
		list = append(list, Way{"webhook", func(ctx context.Context, body []byte, _ ...string) error {
			return hook.Call(ctx, http.MethodPost, body)
		}})
	}
	if line != "" {
		list = append(list, Way{"command", func(ctx context.Context, body []byte, vars ...string) error {
			for i := range vars {
				vars[i] = unquoted.Replace(vars[i])
			}
			return runCommand(ctx, line, within, append(body, '\n'), vars...)
		}})
	}
	return list
}

// runCommand runs a line of the shell in a process group of its own, with input on
// its standard input and vars in its environment, and kills what is left of the
// group when the shell has ended, or its time, or ctx.
func runCommand(ctx context.Context, line string, timeout time.Duration, input []byte, vars ...string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	said := &head{limit: 1 << 10}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), said
	cmd.Env = append(environ(os.Environ()), vars...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.Cancel = kill
	// For a process that left the group and keeps our pipes open.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		_ = kill()
	}
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("killed after %s", timeout)
	}
	if text := quotable(string(said.b)); text != "" {
		return fmt.Errorf("run command: %w: %s", err, text)
	}
	return fmt.Errorf("run command: %w", err)
}

// environ is the environment without our own variables, which may hold secrets.
func environ(all []string) []string {
	keep := make([]string, 0, len(all)+3)
	for _, kv := range all {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PMM_CALLGOOSE_") && name != "CREDENTIALS_DIRECTORY" {
			keep = append(keep, kv)
		}
	}
	return keep
}

// head keeps the beginning of what is written to it.
type head struct {
	b     []byte
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), h.limit-len(h.b))]...)
	return len(p), nil
}

// Hook is a URL of others that is called. Make it with NewHook.
type Hook struct {
	url     func() string
	timeout time.Duration
	http    http.Client
}

// NewHook makes a Hook. url is asked each time and never printed; transport nil is
// HTTP with the proxy of the environment.
func NewHook(url func() string, transport http.RoundTripper, timeout time.Duration) *Hook {
	if transport == nil {
		t, _ := outbound.Transport("") // only a CA file can fail
		t.DisableKeepAlives = true     // a notice is rare, and nothing may outlive Run
		transport = t
	}
	return &Hook{url: url, timeout: timeout, http: http.Client{
		Transport: transport,
		// A followed redirect turns our POST into a GET, and carries the notice to
		// an address nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Call calls the URL once, with JSON unless body is nil. Only a 2xx is no error. The
// error holds nothing of the URL beyond the host.
func (h *Hook) Call(ctx context.Context, method string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, h.url(), bytes.NewReader(body))
	if err != nil {
		return errors.New("call webhook: its URL is not valid") // the parser's error prints it
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "pmm-callgoose")
	resp, err := h.http.Do(req)
	if err != nil {
		step, why := outbound.Explain(err)
		if step == "" {
			why = "the request failed" // what is not known is not quoted: it may hold the address of a proxy with its password
		}
		return errors.New("call webhook: " + why)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, outbound.MaxAnswer)) // the status has said it all
	switch code := resp.StatusCode; {
	case code >= 200 && code <= 299:
		return nil
	case code >= 300 && code <= 399:
		return fmt.Errorf("call webhook: answered %d: redirects are not followed", code)
	default:
		return fmt.Errorf("call webhook: answered %d %s", code, http.StatusText(code))
	}
}
