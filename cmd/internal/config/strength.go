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

// form is what a secret is made of. The zero value is one word.
type form struct {
	// check says what else is wrong with a value, or all that is where it may have
	// several lines.
	check func(value string) error
	lines bool
	// words are the parts that have to be guessed, or hidden: a password without its
	// user, each of several tokens. nil = all of it.
	words func(value string) []string
}

// The forms.
var (
	tokensForm  = form{checkTokens, true, tokens}
	pairForm    = form{checkPair, false, password}
	loginForm   = form{checkLogin, false, password}
	credsForm   = form{checkKeys, true, keys}
	hookForm    = form{func(v string) error { return checkURL(v, "https", "http") }, false, urlParts}
	serversForm = form{func(v string) error { return checkURLs(v, "nats", "tls", "ws", "wss") }, false, urlParts}
	monitorForm = form{func(v string) error { return checkURLs(strings.TrimRight(v, ", "), "http", "https") }, false, urlParts}
)

// checkSecret refuses what is surely a mistake, and what could not be sent in a
// header. The HMAC secret is not sent, but it too was typed into a form.
func (o Option) checkSecret(v string) error {
	if !o.form.lines {
		if err := checkLine(v); err != nil || o.form.check == nil {
			return err
		}
	}
	return o.form.check(v)
}

// words are the parts of a value that are secrets by themselves.
func (o Option) words(v string) []string {
	if o.form.words == nil {
		return []string{v}
	}
	return o.form.words(v)
}

// checkLine refuses what is not one line that can be meant.
func checkLine(v string) error {
	err := checkWord(v)
	if err == nil && strings.ContainsFunc(v, unicode.IsControl) {
		err = errors.New("the secret holds a control character, perhaps a second line")
	}
	return err
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

// checkPair refuses what is not user:password.
func checkPair(v string) error {
	user, password, _ := strings.Cut(v, ":")
	if user == "" || password == "" {
		return errors.New("the secret is not user:password")
	}
	return checkWord(password)
}

// checkLogin takes a token too.
func checkLogin(v string) error {
	if !strings.Contains(v, ":") {
		return nil
	}
	return checkPair(v)
}

func checkKeys(v string) error {
	if len(keys(v)) == 0 {
		return errors.New("the file holds neither a NATS user's credentials nor the seed of an nkey")
	}
	return nil
}

// checkTokens checks one token, or lines NAME TOKEN.
func checkTokens(v string) error {
	if !strings.ContainsAny(v, " \n") {
		return checkLine(v)
	}
	if err := checkWord(v); err != nil {
		return err
	}
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

// password is what stands behind the user, or all of a token.
func password(v string) []string {
	if _, password, ok := strings.Cut(v, ":"); ok {
		v = password
	}
	return []string{v}
}

// tokens are the value, or the second word of each line.
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

// keys are the secret words of NATS credentials: a token, the seed of a key.
func keys(v string) (out []string) {
	for _, word := range natsKey.FindAllString(v, -1) {
		out = append(out, strings.TrimSpace(word))
	}
	return out
}

// checkLength refuses a secret that strangers can guess.
func (o Option) checkLength(v string) error {
	for _, word := range o.words(v) {
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
		s.guessable = true
		if slices.ContainsFunc(o.words(s.Reveal()), func(w string) bool { return len(w) < shortSecret }) {
			l.warn(l.where(name), "has fewer than %d characters; a long random word cannot be guessed", shortSecret)
		}
		if name != "ingest-hmac-secret-file" && cert == "" {
			l.warn(l.where(listener), "is reached without TLS, so that %s can be read on the way", name)
		}
	}
}
