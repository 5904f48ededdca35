package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// set parses text into the option's field. Its errors are for a place that
// already names the option, and quote no value that may hold a secret.
func (o Option) set(c *Config, text string) (err error) {
	field := o.field(c)
	if o.Off != "" && strings.EqualFold(text, o.Off) {
		reflect.ValueOf(field).Elem().SetZero()
		return nil
	}
	switch p := field.(type) {
	case *string:
		*p = text
		switch o.Kind {
		case KindAddress:
			err = checkAddress(text)
		case KindEnum:
			err = o.checkEnum(text)
		}
	case *slog.Level:
		if err = o.checkEnum(text); err == nil {
			err = p.UnmarshalText([]byte(text))
		}
	case *bool:
		*p, err = parseBool(text)
	case *int:
		if *p, err = strconv.Atoi(text); err != nil {
			err = fmt.Errorf("%s is not a whole number", quote(text))
		}
	case *PMMs:
		*p, err = ParsePMMs(text)
	case *map[string]string:
		*p, err = ParseLabels(text)
	case *[]string:
		*p = strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	case *float64:
		if o.Kind == KindPercent {
			*p, err = parsePercent(text)
		} else {
			*p, err = parseRate(text)
		}
	case *time.Duration:
		if *p, err = ParseDuration(text); err == nil && *p == 0 && o.Off == "" {
			err = errors.New("must be longer than zero")
		}
	case *Expect:
		*p, err = ParseExpect(text)
	case *Storm:
		*p, err = parseStorm(text)
	case *int64:
		if *p, err = ParseSize(text); err == nil && *p == 0 && o.Off == "" {
			err = errors.New("must be larger than zero")
		}
	case **Secret:
		if err = o.form.check(text); err == nil {
			*p = o.secret(text)
		}
	default:
		panic("config: no parser for the field of " + o.Name)
	}
	return err
}

func (o Option) checkEnum(text string) error {
	if slices.Contains(o.Values, text) {
		return nil
	}
	return fmt.Errorf("%s is not one of %s", quote(text), strings.Join(o.Values, ", "))
}

// ParseDuration reads a Go duration that may begin with days: 90s, 30d, 1d12h.
func ParseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a duration such as 90s, 5m, 72h or 30d", quote(text))
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	if days == "" || strings.Trim(days, "0123456789.") != "" || strings.ContainsAny(rest, "+-") {
		return 0, bad
	}
	n, err := strconv.ParseFloat(days, 64)
	if err != nil {
		return 0, bad
	}
	var d time.Duration
	if rest != "" || !found {
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, bad
		}
	}
	n *= float64(24 * time.Hour)
	if n+float64(d) >= math.MaxInt64 {
		return 0, fmt.Errorf("%s is too long", quote(text))
	}
	return time.Duration(n) + d, nil
}

// Expect says how long a PMM may be silent. The zero value expects nothing.
type Expect struct {
	// Every holds for each PMM that ever sent something, 0 for none.
	Every time.Duration
	// Sources are the PMM servers named one by one; then Every is 0.
	Sources map[string]time.Duration
}

// On tells whether anything is expected.
func (e Expect) On() bool { return e.Every > 0 || len(e.Sources) > 0 }

var sourceName = regexp.MustCompile(`^[a-z0-9-]{1,16}$`)

// ParseExpect reads a duration, or a list such as pmm=30m,dr=2h.
func ParseExpect(text string) (e Expect, err error) {
	if !strings.Contains(text, "=") {
		e.Every, err = ParseDuration(text)
		return e, err
	}
	e.Sources = map[string]time.Duration{}
	for part := range strings.SplitSeq(text, ",") {
		source, every, _ := strings.Cut(strings.TrimSpace(part), "=")
		if !sourceName.MatchString(source) {
			return Expect{}, fmt.Errorf("%s is not a source, 1 to 16 of a-z, 0-9 and -", quote(source))
		}
		if _, twice := e.Sources[source]; twice {
			return Expect{}, fmt.Errorf("source %s is named twice", source)
		}
		d, err := ParseDuration(every)
		if err != nil {
			return Expect{}, fmt.Errorf("source %s: %w", source, err)
		}
		if d == 0 {
			return Expect{}, fmt.Errorf("source %s: must be longer than zero", source)
		}
		e.Sources[source] = d
	}
	return e, nil
}

// Storm says how many alerts of one PMM may begin within a time before there is a
// storm. The zero value: there never is one.
type Storm struct {
	Most   int
	Within time.Duration
}

// mostStorm bounds Storm.Most: that many times are kept for each source.
const mostStorm = 1000

func parseStorm(text string) (s Storm, err error) {
	most, within, _ := strings.Cut(text, "/")
	if s.Most, err = strconv.Atoi(most); err != nil || s.Most < 1 || s.Most > mostStorm || within == "" {
		return Storm{}, fmt.Errorf("%s is not a number of alerts, 1 to %d, and a time, such as 30/1m", quote(text), mostStorm)
	}
	if s.Within, err = ParseDuration(within); err != nil {
		return Storm{}, err
	}
	if s.Within < time.Second || s.Within > 24*time.Hour {
		return Storm{}, fmt.Errorf("%s is not between 1s and 24h", quote(within))
	}
	return s, nil
}

// ParseLabels reads a list such as severity=critical,env=prod.
func ParseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s is not of the form label=value", quote(part))
		}
		labels[name] = value
	}
	return labels, nil
}

// ParseSize reads a number of bytes: 2GiB, 256MiB, 1.5KiB, 4096.
func ParseSize(text string) (int64, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.TrimSpace(text[len(number):])
	shift := slices.Index([]string{"", "KiB", "MiB", "GiB", "TiB"}, unit)
	if unit == "B" {
		shift = 0
	}
	n, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || strings.Trim(number, "0123456789.") != "":
		return 0, fmt.Errorf("%s is not a size such as 256MiB or 2GiB", quote(text))
	case shift < 0:
		return 0, fmt.Errorf("%s has an unknown unit; use KiB, MiB, GiB, TiB or plain bytes", quote(text))
	}
	if n = math.Ldexp(n, 10*shift); n >= math.MaxInt64 {
		return 0, fmt.Errorf("%s is too large", quote(text))
	}
	return int64(n), nil
}

func parseRate(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0) || math.IsInf(n, 0) {
		return 0, fmt.Errorf("%s is not a number of events a second, nor unlimited", quote(text))
	}
	return n, nil
}

func parsePercent(text string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !strings.HasSuffix(text, "%") {
		return 0, fmt.Errorf("%s is not a share such as 20%%", quote(text))
	}
	return n / 100, nil
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", quote(text))
}

func checkAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("%s is not an address such as 127.0.0.1:4667 or :4667", quote(text))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s is not a port from 0 to 65535", quote(port))
	} else if strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("write port %s as %d", quote(port), n)
	}
	return nil
}

// loopback tells whether only this machine can reach host. A name other than
// localhost may resolve to anything, so it does not count.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// quote makes text from outside fit for one line of a report.
func quote(text string) string {
	const most = 60
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return strconv.Quote(text)
}
