package store

import (
	"os"
	"path/filepath"
	"testing"

	"pmm-callgoose/store/event"
)

// What is on the disk after the machine stopped may be old in places that no check sum
// tells of: the copy is made again. After anything else it goes on.
func TestACopyThatTheMachineStoppedInIsMadeAgain(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(bootID); err != nil {
		t.Skip("the runs of this machine have no names: each commit is synced")
	}
	for _, c := range []struct {
		name    string
		then    func(s *Store, mark string) error
		goesOn  bool
		damaged int // files moved aside
	}{
		{"closed", func(s *Store, _ string) error { return s.Close() }, true, 0},
		{"killed", func(*Store, string) error { return nil }, true, 0},
		{"the machine stopped", func(_ *Store, mark string) error { return os.WriteFile(mark, []byte("another run"), 0o600) }, false, 1},
		{"the disk failed", func(s *Store, _ string) error { _ = s.db.Close(); _ = s.sync(); return nil }, false, 1},
		{"the machine stopped, the file was deleted", func(s *Store, mark string) error {
			_ = os.Remove(filepath.Join(s.cfg.Dir, FileName))
			return os.WriteFile(mark, []byte("another run"), 0o600)
		}, false, 0},
		{"closed, and the machine stopped", func(s *Store, mark string) error {
			if err := s.Close(); err != nil {
				return err
			}
			_, err := os.Stat(mark)
			if err == nil {
				err = os.WriteFile(mark, []byte("another run"), 0o600)
			} else if os.IsNotExist(err) {
				err = nil
			}
			return err
		}, true, 0},
	} {
		dir, copied := t.TempDir(), t.TempDir() // a killed process holds no lock
		s, _, err := Open(Config{Dir: dir, Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		if err := s.Lead(t.Context(), &memory{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Do(t.Context(), func(tx *Tx) { tx.SetProgress(event.Position{Seq: 7}) }); err != nil {
			t.Fatal(err)
		}
		if err := c.then(s, filepath.Join(dir, unsyncedName)); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		again, fresh, err := Open(Config{Dir: copied, Shared: true})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		defer func() { _ = again.Close() }()
		seq, err := again.LogSeq()
		if goesOn := seq == 1 && again.Summary().Progress.Seq == 7; goesOn != c.goesOn || fresh == goesOn || err != nil {
			t.Errorf("%s: it goes on behind entry %d, %v", c.name, seq, err)
		}
		if aside, _ := filepath.Glob(filepath.Join(copied, FileName+".damaged-*")); len(aside) != c.damaged {
			t.Errorf("%s: moved aside: %q", c.name, aside)
		}
	}
}
