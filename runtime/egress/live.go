// Package egress is what a running bottle may reach, and how that is changed while
// it runs: requests, what they come to, and what is told of it. It touches no
// engine and no network.
package egress

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"carboy/runtime/audit"
	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
)

// What a Request does.
const (
	Show   = "show"
	Allow  = "allow"
	Deny   = "deny"
	Pause  = "pause"
	Resume = "resume"
)

// Request is what a supervisor is asked for. Hosts are as policy.ParsePattern reads
// them.
type Request struct {
	Do    string    `json:"do"`
	Hosts []string  `json:"hosts,omitempty"`
	Who   audit.Who `json:"who"`
}

// Live is a bottle's policy as it is now, and as it was at the start.
type Live struct {
	Engine string
	Start  policy.Policy
	Now    policy.Policy
	// InterceptAll says that the TLS of every host is to be opened, of which the
	// bottle's authority knows those of the start alone.
	InterceptAll bool
}

// After is the policy that a request asks for. It fails with errdefs.ErrInvalidArgument,
// or ErrFailedPrecondition for what this bottle cannot do.
func (l Live) After(r Request) (policy.Policy, error) {
	patterns, err := r.Patterns()
	if err != nil {
		return policy.Policy{}, err
	}
	next := l.Now
	switch r.Do {
	case Allow:
		err = l.allow(&next, patterns)
	case Deny:
		err = l.deny(&next, patterns)
	case Pause, Resume:
		next.Paused = r.Do == Pause
	default:
		err = fmt.Errorf("no request %q: %w", r.Do, errdefs.ErrInvalidArgument)
	}
	return next, err
}

// mostHosts bounds what a policy can grow to.
const mostHosts = 10_000

// Patterns are the request's hosts. It fails with errdefs.ErrInvalidArgument.
func (r Request) Patterns() (patterns []policy.Pattern, err error) {
	if takes := r.Do == Allow || r.Do == Deny; takes != (len(r.Hosts) > 0) || len(r.Hosts) > mostHosts {
		return nil, fmt.Errorf("%s of %d hosts: %w", r.Do, len(r.Hosts), errdefs.ErrInvalidArgument)
	}
	for _, host := range r.Hosts {
		p, err := policy.ParsePattern(host)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

func (l Live) allow(next *policy.Policy, patterns []policy.Pattern) error {
	next.Allow, next.Intercept = slices.Clone(next.Allow), slices.Clone(next.Intercept)
	for _, p := range patterns {
		if slices.Contains(next.Allow, p) {
			continue
		}
		next.Allow = append(next.Allow, p)
		switch {
		case slices.Contains(l.Start.Intercept, p):
			next.Intercept = append(next.Intercept, p)
		case l.InterceptAll && !p.Plain() && !slices.Contains(l.Start.Allow, p):
			return fmt.Errorf("this bottle's manifest has the TLS of every host opened, and its certificate authority is for those of its start: write %s into the manifest and start again: %w", p, errdefs.ErrFailedPrecondition)
		}
	}
	if len(next.Allow) > mostHosts {
		return fmt.Errorf("more than %d hosts: %w", mostHosts, errdefs.ErrInvalidArgument)
	}
	if err := next.CheckIntercept(); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// deny removes what was allowed as it is written; a host without a port stands for
// all that is allowed of it. Nothing that was denied may be left reachable: there
// are no exceptions from what is allowed.
func (l Live) deny(next *policy.Policy, patterns []policy.Pattern) error {
	gone := func(p policy.Pattern) bool {
		return slices.ContainsFunc(patterns, func(denied policy.Pattern) bool { return Means(denied, p) })
	}
	next.Allow = slices.DeleteFunc(slices.Clone(next.Allow), gone)
	next.Intercept = slices.DeleteFunc(slices.Clone(next.Intercept), gone)
	for _, denied := range patterns {
		if err := l.checkDenied(*next, denied); err != nil {
			return err
		}
	}
	return nil
}

// Means is whether an entry is one of those that were written.
func Means(denied, p policy.Pattern) bool {
	return p.Host() == denied.Host() && (!denied.HasPort() || p.HasPort() && p.Ports()[0] == denied.Ports()[0])
}

func (l Live) checkDenied(next policy.Policy, denied policy.Pattern) error {
	for _, p := range next.Allow {
		if !p.MeetsHost(denied) {
			continue
		}
		if Reaches(p, denied) {
			return fmt.Errorf("%s would still be reached, by %s: deny that: %w", denied, p, errdefs.ErrInvalidArgument)
		}
		if l.Engine == proxy.Pipelock && shared(next.Ports(), denied.Ports()) {
			return fmt.Errorf("%s would still be reached: pipelock chooses by the host, which %s allows, and other rules open that port: deny %s: %w", denied, p, p.Host(), errdefs.ErrInvalidArgument)
		}
	}
	if !slices.ContainsFunc(l.Now.Allow, func(p policy.Pattern) bool { return Means(denied, p) }) {
		return fmt.Errorf("%s is not among what is allowed: `carboy egress show` lists that: %w", denied, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Reaches is whether an entry allows some of what is denied.
func Reaches(p, denied policy.Pattern) bool {
	return p.MeetsHost(denied) && (!denied.HasPort() || shared(p.Ports(), denied.Ports()))
}

func shared(a, b []uint16) bool {
	return slices.ContainsFunc(a, func(port uint16) bool { return slices.Contains(b, port) })
}

// Narrows says that a policy does not allow all that is allowed now.
func (l Live) Narrows(next policy.Policy) bool {
	return next.Paused && !l.Now.Paused || slices.ContainsFunc(l.Now.Allow, func(p policy.Pattern) bool { return !slices.Contains(next.Allow, p) })
}
