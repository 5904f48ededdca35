package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// PMM is one PMM server that is asked. Its URL holds no secret.
type PMM struct {
	Source string // its name, as in the URL of its webhook
	URL    string
}

// PMMs is the value of --pmm-url, by name.
type PMMs []PMM

// ParsePMMs reads https://HOST, or a list such as pmm=https://HOST,dr=https://OTHER.
// Its errors do not quote what may hold a password.
func ParsePMMs(text string) (list PMMs, err error) {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		p := PMM{Source: "pmm", URL: part}
		if name, url, named := strings.Cut(part, "="); named && !strings.Contains(name, ":") {
			p = PMM{Source: name, URL: url}
		}
		switch {
		case !sourceName.MatchString(p.Source):
			return nil, fmt.Errorf("%s is not a source, 1 to 16 of a-z, 0-9 and -", quote(p.Source))
		case slices.ContainsFunc(list, func(q PMM) bool { return q.Source == p.Source }):
			return nil, fmt.Errorf("source %s is named twice", p.Source)
		case strings.ContainsAny(p.URL, "@?#"):
			return nil, errors.New("holds more than https://HOST; the token or password belongs into a file")
		}
		if checkURL(p.URL, "https", "http") != nil {
			return nil, errors.New("is not of the form https://host")
		}
		list = append(list, p)
	}
	return list, nil
}

// checkPMM compares what is said about PMM with each other.
func (l *loader) checkPMM() {
	c := l.c
	for _, p := range c.PMMURL {
		l.refuse(Cleartext(p.URL) && !c.AllowHTTP, "pmm-url", "is plain http, which shows the token to everyone on the way; use https, or set allow-http")
	}
	l.refuse(len(c.PMMURL) > 0 && l.in.Serve && !l.given("pmm-token-file") && !l.given("pmm-basic-auth-file"),
		"pmm-url", "needs pmm-token-file: a file with the token of a service account of PMM, role Viewer")
	if r := l.setting("reconcile"); len(c.PMMURL) == 0 && r.From == fromDefault {
		c.Reconcile, r.Value = "off", "off"
	}
	l.needs(len(c.PMMURL) > 0 || c.Reconcile == "off", "pmm-url and pmm-token-file: whom to ask", "reconcile")
	l.refuse(c.ReconcileLimit <= 0 || c.ReconcileLimit > 1, "reconcile-limit", "is not more than 0 and at most 100%%")
}
