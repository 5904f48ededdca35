package doctor

import "context"

// PMM says how PMM's own side is looked at.
type PMM struct {
	URL   string // "" = it is not looked at
	Token func() string
}

// pmm looks at PMM's contact point and route.
func (e *examination) pmm(context.Context) {
	if e.PMM.URL == "" {
		e.skip("pmm", "PMM's contact point is looked at with --pmm-url and --pmm-token-file")
		return
	}
	e.skip("pmm", "not built yet")
}
