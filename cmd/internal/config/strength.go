package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	leastSecret = 8  // characters of a secret that others can try to guess
	shortSecret = 16 // fewer can be guessed in time
)

// placeholders stand in our own manifests and pages where a secret belongs.
var placeholders = []string{"A-LONG-RANDOM-WORD", "YOUR-API-TOKEN"}

// secretURLs are the settings whose secret is a URL that stands in no other one.
var secretURLs = []string{"ping-url", "fallback-webhook"}

// checkSecret refuses what is surely a mistake, and what could not be sent in a
// header. The HMAC secret is not sent, but it too was typed into a form.
func (o Option) checkSecret(v string) error {
	if o.Name == "nats-creds-file" {
		if len(keys(v)) == 0 {
			return errors.New("the file holds neither a NATS user's credentials nor the seed of an nkey")
		}
		return nil
	}
	if err := checkWord(v); err != nil {
		return err
	}
	switch user, password, pair := strings.Cut(v, ":"); {
	case (o.Name == "ingest-token-file" || o.Name == "pmm-token-file") && strings.ContainsAny(v, " \n"):
		return checkTokens(v)
	case strings.ContainsFunc(v, unicode.IsControl):
		return errors.New("the secret holds a control character, perhaps a second line")
	case strings.HasSuffix(o.Name, "-basic-auth-file"), o.Name == "nats-user-file" && pair:
		if user == "" || password == "" {
			return errors.New("the secret is not user:password")
		}
		return checkWord(password)
	case slices.Contains(secretURLs, o.Setting()):
		return URL(v).check("https", "http")
	case o.plainTwin() != "":
		return URL(v).checkFor(o.plainTwin())
	}
	return nil
}

// checkWord refuses what an editor, a shell or a person in haste put around a
// secret, or left in its place.
func checkWord(v string) error {
	switch {
	case strings.HasPrefix(v, "\ufeff"), strings.HasPrefix(v, "\xff\xfe"), strings.HasPrefix(v, "\xfe\xff"):
		return errors.New("the secret begins with a byte order mark (BOM); save the file as plain text without it")
	case strings.ContainsFunc(v, func(r rune) bool { return r >= utf8.RuneSelf }):
		return errors.New("the secret holds characters other than letters, digits and signs of ASCII, which cannot be compared safely")
	case strings.TrimSpace(v) != v:
		return errors.New("the secret has a blank, a tab or an empty line at its beginning or end; take it out")
	case len(v) >= 2 && v[0] == v[len(v)-1] && (v[0] == '"' || v[0] == '\'' || v[0] == '`'):
		return errors.New("the secret stands in quotes; take them out")
	case len(v) >= 7 && strings.EqualFold(v[:7], "bearer "):
		return errors.New(`the secret begins with "Bearer "; only what follows it is the token`)
	case slices.ContainsFunc(placeholders, func(p string) bool { return strings.EqualFold(p, v) }):
		return errors.New("the secret is the placeholder of the examples; put a real one in its place")
	}
	return nil
}

// checkTokens checks the lines NAME TOKEN of --ingest-token-file.
func checkTokens(v string) error {
	for i, l := range strings.Split(v, "\n") {
		name, token, ok := strings.Cut(strings.TrimSuffix(l, "\r"), " ")
		switch {
		case !ok || !sourceName.MatchString(name) || token == "":
			return fmt.Errorf("line %d is not of the form NAME TOKEN, NAME being a source, 1 to 16 of a-z, 0-9 and -; a token that is good for every source stands alone, without blanks", i+1)
		case strings.ContainsFunc(token, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
			return fmt.Errorf("line %d holds a blank or a control character in its token", i+1)
		}
		if err := checkWord(token); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return nil
}

// parts are the words of a secret that has to be guessed: a password without its
// user, each of several tokens.
func (o Option) parts(v string) (words []string) {
	switch {
	case strings.HasSuffix(o.Name, "-basic-auth-file"):
		_, password, _ := strings.Cut(v, ":")
		return []string{password}
	case o.Name == "ingest-token-file":
		return tokens(v)
	}
	return []string{v}
}

// tokens are those of --ingest-token-file: the value, or the second word of each line.
func tokens(v string) (out []string) {
	if !strings.ContainsAny(v, " \n") {
		return []string{v}
	}
	for l := range strings.Lines(v) {
		if f := strings.Fields(l); len(f) == 2 {
			out = append(out, f[1])
		}
	}
	return out
}

var natsKey = regexp.MustCompile(`\b(?:eyJ[\w.-]{50,}|S[A-Z2-7]{57})(?:\s|$)`)

// keys are the secret words of --nats-creds-file: a token, the seed of a key.
func keys(v string) (out []string) {
	for _, word := range natsKey.FindAllString(v, -1) {
		out = append(out, strings.TrimSpace(word))
	}
	return out
}

// checkLength refuses a secret that strangers can guess.
func (o Option) checkLength(v string) error {
	for _, word := range o.parts(v) {
		if len(word) < leastSecret {
			return fmt.Errorf("has fewer than %d characters, and other machines can try to guess it", leastSecret)
		}
	}
	return nil
}

// strength checks the secrets that protect a listener, which has TLS where cert is
// set: the named ones that are set.
func (l *loader) strength(listener, addr, cert string, names ...string) {
	if !BeyondLoopback(addr) {
		return
	}
	for _, name := range names {
		o, _ := find(name)
		s := *o.field(l.c).(**Secret)
		if !s.IsSet() {
			continue
		}
		if err := o.checkLength(s.Reveal()); err != nil {
			l.wrong(name, "%v", err)
			continue
		}
		if usual := s.check; usual != nil {
			s.check = func(v string) error { // a reload is held to the same
				if err := usual(v); err != nil {
					return err
				}
				return o.checkLength(v)
			}
		}
		if slices.ContainsFunc(o.parts(s.Reveal()), func(w string) bool { return len(w) < shortSecret }) {
			l.warn(l.where(name), "has fewer than %d characters; a long random word cannot be guessed", shortSecret)
		}
		if name != "ingest-hmac-secret-file" && cert == "" {
			l.warn(l.where(listener), "is reached without TLS, so that %s can be read on the way", name)
		}
	}
}
