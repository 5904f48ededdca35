package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServesUntilToldToStop(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, stdout := io.Pipe()
	var log bytes.Buffer
	done := make(chan error)
	go func() {
		done <- run(ctx, []string{"callgoose-fake", "--listen", "127.0.0.1:0", "--filters", "guide", "--token-file", tokens, "--fail", "413-html", "--fail-text", "pending"}, stdout, &log)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := strings.Fields(line)[3]
	for token, code := range map[string]int{"hush": 201, "wrong-hush": 401} {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"?from=PMM&token="+token, strings.NewReader(`{"status":"firing"}`))
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != code {
			t.Errorf("got %d, want %d", resp.StatusCode, code)
		}
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"status":"pending"}`))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != 413 || resp.Header.Get("Content-Type") != "text/html" {
		t.Errorf("what matches: got %d %v", resp.StatusCode, resp.Header)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopping: %v", err)
	}
	if text := log.String(); strings.Count(text, "msg=request") != 3 || strings.Contains(text, "hush") {
		t.Errorf("log: %s", text)
	}
}

func TestRefusesWhatItDoesNotUnderstand(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--filters", "mine"}, {"--fail", "explode"}, {"--token-file", empty}, {"--token-file", empty + "x"}, {"--listen", "nowhere"}, {"extra"}, {"--nonsense"},
	} {
		if err := run(t.Context(), append([]string{"callgoose-fake"}, args...), io.Discard, io.Discard); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}
