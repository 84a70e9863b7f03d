package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Plain says that the pattern was declared, with tcp:, to carry something else
// than TLS.
func (p Pattern) Plain() bool { return p.plain }

// Passthrough are the allowed patterns whose TLS stays end to end.
func (p Policy) Passthrough() []Pattern {
	return slices.DeleteFunc(slices.Clone(p.Allow), func(a Pattern) bool { return slices.Contains(p.Intercept, a) })
}

// CheckIntercept fails where an engine that chooses by the host alone, and takes
// a list of hosts that pass through, could not do what was asked for.
func (p Policy) CheckIntercept() error {
	for _, i := range p.Intercept {
		if i.plain {
			return fmt.Errorf("%s carries no TLS that could be intercepted", i)
		}
		for _, a := range p.Passthrough() {
			if a.covers(i) || i.covers(a) && !a.hasPorts(i) {
				return fmt.Errorf("%s is to be intercepted and %s is not, but the proxy chooses by the host and not by the port: say the same of both", i, a)
			}
		}
	}
	return nil
}

// covers says that the pattern matches every host that other does, whatever
// the ports.
func (p Pattern) covers(other Pattern) bool {
	if p.wildcard && strings.HasSuffix(other.host, "."+p.host) {
		return true
	}
	return p.host == other.host && p.wildcard == other.wildcard
}

// MeetsHost says that both patterns match some host, whatever the ports.
func (p Pattern) MeetsHost(other Pattern) bool { return p.covers(other) || other.covers(p) }

func (p Pattern) hasPorts(other Pattern) bool {
	return !slices.ContainsFunc(other.Ports(), func(port uint16) bool { return !slices.Contains(p.Ports(), port) })
}
