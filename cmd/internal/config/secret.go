package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"pmm-callgoose/store/redact"
)

const redacted = redact.Word

// Secret holds a secret and knows where it came from. Printed, logged or
// encoded in any way it shows [redacted], or nothing when it is not set. A nil
// Secret is one that is not set. All methods may be used concurrently.
type Secret struct {
	// Behind a pointer, so that not even a walk by reflection prints it.
	value     atomic.Pointer[string]
	past      atomic.Pointer[[]string] // what it was before, newest last; replaced, never changed
	of        Option                   // zero for one of NewSecret
	file      string                   // what Reload reads; empty if there is no file
	guessable bool                     // strangers can try to guess it: Reload refuses a short one
	mu        sync.Mutex               // one Reload at a time
}

// keepPast bounds how many former values of a secret are remembered, so that
// no late error brings one of them into the log.
const keepPast = 16

// NewSecret returns a secret that came from no file.
func NewSecret(value string) *Secret {
	s := &Secret{}
	s.value.Store(&value)
	return s
}

// secret is a value of the option that came from no file.
func (o Option) secret(value string) *Secret {
	s := NewSecret(value)
	s.of = o
	return s
}

// readSecret reads the secret that the option names, from file.
func readSecret(o Option, file string) (*Secret, error) {
	s := &Secret{of: o, file: file}
	_, err := s.Reload()
	return s, err
}

// Reveal returns the secret itself, to be used and not to be printed.
func (s *Secret) Reveal() string {
	if s == nil {
		return ""
	}
	if v := s.value.Load(); v != nil {
		return *v
	}
	return ""
}

// IsSet tells whether there is a secret.
func (s *Secret) IsSet() bool { return s.Reveal() != "" }

// Name is the setting that the secret is the value of.
func (s *Secret) Name() string { return s.of.Setting() }

// File is where it was read, "" when that was no file.
func (s *Secret) File() string {
	if s == nil {
		return ""
	}
	return s.file
}

// Reload reads the file again and tells whether the secret changed. On an error
// the old secret stays. A secret that came from elsewhere never changes.
func (s *Secret) Reload() (changed bool, err error) {
	if s == nil || s.file == "" {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := readSecretFile(s.file)
	if err == nil {
		err = s.of.checkSecret(v)
	}
	if err == nil && s.guessable {
		err = s.of.checkLength(v)
	}
	if err != nil {
		return false, err
	}
	old := s.value.Load()
	if old != nil && *old == v {
		return false, nil
	}
	if old != nil {
		past := s.former()
		past = append(slices.Clone(past[max(len(past)-keepPast+1, 0):]), *old)
		s.past.Store(&past) // before the new one: a reader of both misses none
	}
	s.value.Store(&v)
	return true, nil
}

func (s *Secret) former() []string {
	if p := s.past.Load(); p != nil {
		return *p
	}
	return nil
}

func readSecretFile(path string) (string, error) {
	const most = 64 << 10
	b, err := readAtMost(path, most+1)
	if err != nil {
		return "", fmt.Errorf("%s cannot be read: %w", sayFile(path), pathless(err))
	}
	if len(b) > most {
		return "", fmt.Errorf("%s is too large for a secret", sayFile(path))
	}
	v := trimNewline(string(b))
	if v == "" {
		return "", fmt.Errorf("%s is empty", sayFile(path))
	}
	return v, nil
}

// pathless is err without the path, which the caller names in its own way.
func pathless(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// sayFile names the file of a secret in an error. People do put the token itself
// where its file should be named: a path whose directory does not exist may be one.
func sayFile(path string) string {
	dir := filepath.Dir(path)
	if fi, err := os.Stat(dir); filepath.IsAbs(path) && dir != "/" && err == nil && fi.IsDir() {
		return path
	}
	return "the file it names"
}

func trimNewline(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

// exposed tells whether more people than needed may read the file.
func exposed(path string) bool {
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return false
	}
	groups, _ := os.Getgroups()
	return Exposed(fi, os.Geteuid(), append(groups, os.Getegid()))
}

// Exposed tells whether more people may read the file than the user uid with these
// groups needs. A file of another owner can be given to that user only through a group:
// a pod gets its secrets so, owned by root, mode 0440, with the group that fsGroup names.
// Files of the user itself need be readable for nobody else.
func Exposed(fi fs.FileInfo, uid int, groups []int) bool {
	mode := fi.Mode().Perm()
	st, ok := fi.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) != uid && slices.Contains(groups, int(st.Gid)) {
		return mode&0o004 != 0
	}
	return mode&0o044 != 0
}

func (s *Secret) String() string {
	if s.IsSet() {
		return redacted
	}
	return ""
}

// Format covers every verb of fmt, %#v and %d as well.
func (s *Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue is what slog logs.
func (s *Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is what JSON and YAML hold.
func (s *Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
