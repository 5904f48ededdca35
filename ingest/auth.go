package ingest

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"pmm-callgoose/ingest/pmm"
)

// maxSkew is how far a signed time may be off. A captured request can be sent
// again for that long, so signatures that were used are remembered meanwhile:
// deduplication does not make a second use harmless, an old recovery could end
// the incident of an alert that fires again.
const maxSkew = 5 * time.Minute

// guard decides who may send. Its methods return "" or the reason to give the sender,
// and never repeat what the sender said, which may be half a credential.
type guard struct {
	token, basic, secret func() string
	timestampHeader      string
	timestampRequired    bool
	challenges           []string // for WWW-Authenticate
	schemes              string   // for people
}

func newGuard(c Config) guard {
	g := guard{
		token: c.Token, basic: c.Basic, secret: c.HMACSecret,
		timestampHeader:   cmp.Or(c.HMACTimestampHeader, pmm.TimestampHeader),
		timestampRequired: c.HMACTimestampHeader != "",
	}
	var schemes []string
	if g.token != nil {
		schemes = append(schemes, "Bearer")
	}
	if g.basic != nil {
		schemes = append(schemes, "Basic")
	}
	g.schemes = strings.Join(schemes, " or ")
	if g.secret != nil {
		schemes = append(schemes, "HMAC-SHA256")
	}
	for _, s := range schemes {
		g.challenges = append(g.challenges, s+` realm="pmm-callgoose"`)
	}
	return g
}

// open reports whether anybody may send.
func (g *guard) open() bool { return g.token == nil && g.basic == nil && g.secret == nil }

// header checks all that can be checked before the body is read.
func (g *guard) header(source string, h http.Header, now time.Time) string {
	if g.token != nil || g.basic != nil {
		if reason := g.authorization(source, h.Get("Authorization")); reason != "" {
			return reason
		}
	}
	if g.secret == nil {
		return ""
	}
	switch signature := h.Get(pmm.SignatureHeader); {
	case signature == "":
		return fmt.Sprintf("no %s header: switch on HMAC signature in the contact point", pmm.SignatureHeader)
	case len(signature) != 2*sha256.Size, strings.Trim(signature, "0123456789abcdefABCDEF") != "":
		return fmt.Sprintf("header %s is not the right signature: it does not hold %d hexadecimal digits", pmm.SignatureHeader, 2*sha256.Size)
	}
	return g.timestamp(h.Get(g.timestampHeader), now)
}

func (g *guard) authorization(source, value string) string {
	if value == "" {
		return "no Authorization header, expected scheme " + g.schemes
	}
	scheme, credentials, _ := strings.Cut(value, " ")
	credentials = strings.TrimSpace(credentials)
	switch {
	case g.token != nil && strings.EqualFold(scheme, "Bearer"):
		text, reason := g.token(), "the Bearer token is wrong"
		if named(text) {
			reason += ", or not that of source " + source
		}
		return matches(credentials, TokensOf(text, source), reason)
	case g.basic != nil && strings.EqualFold(scheme, "Basic"):
		pair, err := base64.StdEncoding.DecodeString(credentials)
		if err != nil {
			return "the Basic credentials are not base64"
		}
		return matches(string(pair), []string{g.basic()}, "the Basic user or password is wrong")
	}
	return fmt.Sprintf("Authorization header has %s, expected %s", describe(scheme), g.schemes)
}

// TokensOf returns the tokens with which a PMM server may post as source. text is
// one token, good for every source, or lines of the form NAME TOKEN, each good for
// the source of that name; a name may stand on several lines, so that its token
// can be replaced without a gap.
func TokensOf(text, source string) (tokens []string) {
	if !named(text) {
		return []string{text}
	}
	for l := range strings.Lines(text) {
		if f := strings.Fields(l); len(f) == 2 && f[0] == source {
			tokens = append(tokens, f[1])
		}
	}
	return tokens
}

// named reports whether text has lines NAME TOKEN.
func named(text string) bool { return strings.ContainsAny(text, " \n") }

// matches compares in a time that depends on the content of neither.
func matches(got string, wanted []string, reason string) string {
	sum, good := sha256.Sum256([]byte(got)), 0
	for _, want := range wanted {
		if want == "" {
			return "the secret of the service is empty or unreadable, so nobody is let in"
		}
		other := sha256.Sum256([]byte(want))
		good |= subtle.ConstantTimeCompare(sum[:], other[:])
	}
	if good == 1 {
		return ""
	}
	return reason
}

// describe names a well-known scheme. Anything else may be a token that was
// entered without one.
func describe(scheme string) string {
	for _, known := range []string{"Bearer", "Basic", "Digest", "Token", "ApiKey", "Api-Key", "OAuth", "GenieKey", "Negotiate"} {
		if strings.EqualFold(scheme, known) {
			return "scheme " + known
		}
	}
	return "no scheme that the service knows"
}

// timestamp checks a signed time. Only digits will do: the body begins with none
// of them, so a signature over "time:body" can never pass as one over a body, nor
// one over a body as one over "time:body". Neither dropping nor adding the header
// revives a captured request.
func (g *guard) timestamp(value string, now time.Time) string {
	if value == "" {
		if g.timestampRequired {
			return fmt.Sprintf("no %s header: name it as timestamp header in the contact point", g.timestampHeader)
		}
		return ""
	}
	seconds, err := strconv.ParseUint(value, 10, 40)
	if err != nil {
		return fmt.Sprintf("header %s does not hold Unix seconds", g.timestampHeader)
	}
	if skew := now.Sub(time.Unix(int64(seconds), 0)).Abs(); skew > maxSkew {
		return fmt.Sprintf("header %s is %s off the clock of the service, at most %s is allowed",
			g.timestampHeader, skew.Round(time.Second), maxSkew)
	}
	return ""
}

// signature checks the body against its signature, after header let it pass, and
// returns the signature: of all requests that pass it marks this one.
func (g *guard) signature(h http.Header, body []byte) (signature, string) {
	if g.secret == nil {
		return signature{}, ""
	}
	secret := g.secret()
	if secret == "" {
		return signature{}, "the HMAC secret of the service is empty or unreadable, so nobody is let in"
	}
	at, signed := h.Get(g.timestampHeader), "the body"
	if at != "" {
		signed = "timestamp and body"
	}
	want := pmm.Signature(secret, at, body)
	if got, err := hex.DecodeString(h.Get(pmm.SignatureHeader)); err == nil && hmac.Equal(got, want) {
		return signature(want), ""
	}
	return signature{}, fmt.Sprintf("header %s is not the right signature over %s: compare the secret and the timestamp header's name",
		pmm.SignatureHeader, signed)
}

// until is when a signature need no longer be remembered, on a clock that does not jump:
// when its time is too old for a second use, wherever in maxSkew it was, or, where none is
// signed, after untimedFor.
func (g *guard) until(h http.Header, now time.Time) (until time.Time, timed bool) {
	if h.Get(g.timestampHeader) == "" {
		return now.Add(untimedFor), false
	}
	return now.Add(2*maxSkew + time.Second), true
}
