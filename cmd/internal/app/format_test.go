package app

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
)

// formatConfig keeps everything: what stands in testdata is old.
func formatConfig(c *config.Config) { c.Retention, c.RetryFor, c.LateAfter = 0, 1<<62, 0 }

// fillDirectory fills a data directory: one incident that opened and closed, an event
// that no filter matched, a dead letter, a repeat, and three that still wait.
func fillDirectory(r *rig) {
	r.acceptFile("guide-firing.json")
	r.settle()
	r.acceptFile("guide-firing.json")
	r.acceptFile("guide-resolved.json")
	r.settle()
	r.accept(group(alert{Status: "firing", Labels: map[string]string{"alertname": "Disk", "severity": "none", "instance": "a"}, StartsAt: time.Now()}))
	r.settle()
	r.accept([]byte(`{"alerts":[{"status":"firing","labels":{"alertname":"Good"}},{"status":"odd"}]}`))
	r.settle()
	r.net.Refuse(true)
	now := time.Now()
	r.accept(group(mysqlDown(1, "firing", now), mysqlDown(2, "firing", now)))
	time.Sleep(time.Minute)
	r.accept(group(mysqlDown(1, "resolved", now)))
	time.Sleep(time.Minute)
}

// Every format that was released stays readable: testdata/datadir holds a data
// directory written by each. -update writes the one of today's format only if
// it is not there: a file that changed is a migration, not an update.
func TestDataDirectoriesOfEveryFormatOpen(t *testing.T) {
	t.Parallel()
	const today = "../../../testdata/datadir/format-1.tar.gz"
	if _, err := os.Stat(today); *update && errors.Is(err, fs.ErrNotExist) {
		bubble(t, formatConfig, func(r *rig) {
			fillDirectory(r)
			r.halt()
			pack(t, r.cfg.DataDir, today)
			r.start()
		})
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(today), "*.tar.gz"))
	if err != nil || len(files) == 0 {
		t.Fatal("no data directories", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			bubble(t, func(c *config.Config) {
				formatConfig(c)
				unpack(t, file, c.DataDir)
			}, func(r *rig) {
				s := r.settle()
				if s.Delivered != 7 || s.Dead != 1 || s.Suppressed != 1 || s.Queued != 0 || s.Notifications != 7 || s.Damaged != 0 {
					t.Errorf("counts %+v", s)
				}
				if got := len(r.events(event.Filter{})); got != 9 {
					t.Errorf("%d events are listed, want 9", got)
				}
				waited := r.statuses() // keys go out side by side, each in order
				var both, one int
				for _, statuses := range waited {
					switch strings.Join(statuses, " ") {
					case "firing resolved":
						both++
					case "firing":
						one++
					}
				}
				if len(waited) != 2 || both != 1 || one != 1 {
					t.Errorf("delivered on opening: %v", waited)
				}
				for _, e := range r.events(event.Filter{}) {
					d, err := r.app.Event(context.Background(), e.ID)
					if err != nil || d.Missing != "" || len(d.Raw) == 0 {
						t.Errorf("event %s: %v, %+v", e.ID, err, d)
					}
				}
				// The episode that was open then still swallows a repeat.
				job := replayAll(r, event.Filter{Labels: map[string]string{"alertname": "MySQL Down"}})
				if job.Total == 0 || job.Settled != job.Total {
					t.Errorf("replay %+v", job)
				}
				r.restart()
			})
		})
	}
}

func replayAll(r *rig, f event.Filter) admin.Job {
	r.t.Helper()
	p, err := r.app.Replay(context.Background(), admin.ReplayRequest{Filter: f, IncludeClosed: true})
	if err != nil {
		r.t.Fatal(err)
	}
	for {
		time.Sleep(time.Second)
		switch job, err := r.app.ReplayJob(p.Job); {
		case err != nil:
			r.t.Fatal(err)
		case job.Done:
			return job
		}
	}
}

func pack(t *testing.T, dir, to string) {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for name, content := range files(t, dir) {
		if err := w.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close(), os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if !filepath.IsLocal(h.Name) {
			t.Fatal(fmt.Errorf("%s leads out of the directory", h.Name))
		}
		b, err := io.ReadAll(r)
		if err == nil {
			path := filepath.Join(dir, h.Name)
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil {
			out[name], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
