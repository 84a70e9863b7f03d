package verify

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"carboy/runtime/verify/inside"
)

// Group is addresses that an agent must not get to, under one name.
type Group struct {
	Name    string
	Targets []netip.AddrPort
	// Arrived says whether something was heard at one of them that listens for
	// the purpose; its error says that it would not have been.
	Arrived func() (string, error)
}

// Insider is what a process in the agent's container did and saw.
type Insider struct {
	Sandbox bool
	Root    bool
	Link    netip.Prefix // to the proxy
	Allowed string       // the host that was asked for; empty is none
	Groups  []Group
	// Account waits for the process.
	Account func() (inside.Account, error)
}

// Probes judge it. It is one of three witnesses: a live agent could make it lie.
func (i Insider) Probes() []Probe {
	judge := func(f func(inside.Account) (string, error)) func(context.Context) (string, error) {
		return func(context.Context) (string, error) {
			a, err := i.Account()
			if err != nil {
				return "", unknown("the process in the container: %w", err)
			}
			return f(a)
		}
	}
	probes := []Probe{
		{"agent-rights", judge(i.rights)},
		{"agent-network", judge(i.network)},
		{"agent-raw", judge(i.raw)},
		{"agent-sockets", judge(i.sockets)},
		{"agent-kernel", judge(i.kernel)},
		{"agent-resolver", judge(i.resolver)},
		{"agent-denied", judge(i.denied)},
	}
	if i.Allowed != "" {
		probes = append(probes, Probe{"agent-allowed", judge(i.allowed)})
	}
	for _, g := range i.Groups {
		probes = append(probes, Probe{"agent-to-" + g.Name, judge(func(a inside.Account) (string, error) { return i.reach(a, g) })})
	}
	return probes
}

// rights: gVisor filters no system calls of its guests, it is the kernel that
// they see.
func (i Insider) rights(a inside.Account) (string, error) {
	var errs []error
	if !a.NoNewPrivs {
		errs = append(errs, errors.New("no_new_privs is off"))
	}
	const filter = 2
	if !i.Sandbox && a.Seccomp != filter {
		errs = append(errs, errors.New("seccomp is off"))
	}
	if a.UID == 0 && !i.Root {
		errs = append(errs, errors.New("it is root, which nobody asked for"))
	}
	if len(a.Processes) == 0 && len(errs) == 0 {
		return "", unknown("it saw no process")
	}
	for _, p := range a.Processes {
		errs = append(errs, checkRights(p.PID, p.Has, p.Bounding, i.Root))
	}
	return fmt.Sprintf("uid %d, no_new_privs, and none of %d processes has more capabilities than it should", a.UID, len(a.Processes)), errors.Join(errs...)
}

func (i Insider) network(a inside.Account) (string, error) {
	var errs []error
	if !slices.Equal(a.Links, []string{"eth0", "lo"}) {
		errs = append(errs, fmt.Errorf("the links are %v", a.Links))
	}
	for _, r := range a.Routes {
		if r.Bits() < i.Link.Bits() || !i.Link.Contains(r.Addr()) {
			errs = append(errs, fmt.Errorf("a route to %s", r))
		}
	}
	if len(a.IPv6) > 0 {
		errs = append(errs, fmt.Errorf("IPv6 addresses: %v", a.IPv6))
	}
	return "eth0 and lo, no route beyond, no IPv6", errors.Join(errs...)
}

func (i Insider) raw(a inside.Account) (string, error) {
	var open []string
	for _, o := range a.Raw {
		if o.Error == "" {
			open = append(open, o.What)
		}
	}
	if len(open) > 0 {
		return "", fmt.Errorf("it can open a %s", strings.Join(open, ", a "))
	}
	if len(a.Raw) == 0 {
		return "", unknown("it tried none")
	}
	return fmt.Sprintf("none of %d kinds of raw sockets can be opened", len(a.Raw)), nil
}

func (i Insider) sockets(a inside.Account) (string, error) {
	return complete("no socket of the host is mounted", a, a.HostSockets)
}

// kernel: a sandbox of gVisor has one of its own, with a /dev/fuse of its own.
func (i Insider) kernel(a inside.Account) (string, error) {
	if i.Sandbox {
		devices := slices.DeleteFunc(slices.Clone(a.Devices), func(d string) bool { return d == "/dev/fuse" })
		return complete("the sandbox's own, no device but the usual", a, devices)
	}
	return complete("no switch can be written, no device but the usual", a, slices.Concat(a.Writable, a.Devices))
}

// complete is about lists that have to be empty, and to have been made.
func complete(want string, a inside.Account, found []string) (string, error) {
	if len(found) > 0 {
		return "", errors.New(strings.Join(found, " "))
	}
	if len(a.Errors) > 0 {
		return "", unknown("%s", strings.Join(a.Errors, "; "))
	}
	return want, nil
}

func (i Insider) resolver(a inside.Account) (string, error) {
	return complete("none in resolv.conf", a, a.Resolvers)
}

// denied is its own control: the proxy says so in words.
func (i Insider) denied(a inside.Account) (string, error) {
	none := ""
	if i.Allowed == "" {
		none = "; no host is allowed by its full name, so none was asked for"
	}
	switch {
	case a.Denied.Open:
		return "", errors.New("the proxy opened a tunnel to " + Denied)
	case a.Denied.Said:
		return a.Denied.Error + none, nil
	}
	return "", unknown("the proxy: %s", a.Denied.Error)
}

// Denied is a host that no bottle is allowed: it never exists (RFC 2606).
const Denied = "carboy-verify.invalid:443"

func (i Insider) allowed(a inside.Account) (string, error) {
	if !a.Allowed.Open {
		return "", unknown("%s: %s", i.Allowed, a.Allowed.Error)
	}
	return "the proxy opens a tunnel to " + i.Allowed, nil
}

// reach has the proxy's words as its control: the same kind of socket is
// answered by what may answer.
func (i Insider) reach(a inside.Account, g Group) (string, error) {
	tried := 0
	var errs []error
	for _, t := range a.Attempts {
		if !slices.Contains(g.Targets, t.To) {
			continue
		}
		tried++
		if t.Reached {
			errs = append(errs, fmt.Errorf("%s %s answers", t.Protocol, t.To))
		}
	}
	heard, err := g.Arrived()
	if heard != "" {
		errs = append(errs, errors.New(heard))
	}
	switch {
	case len(errs) > 0:
		return "", errors.Join(errs...)
	case err != nil:
		return "", unknown("%w", err)
	case tried < len(g.Targets):
		return "", unknown("it tried %d times at %s", tried, count(len(g.Targets)))
	case !a.Denied.Open && !a.Denied.Said:
		return "", unknown("no control: the proxy does not answer: %s", a.Denied.Error)
	}
	return fmt.Sprintf("%d attempts at %s: no answer", tried, count(len(g.Targets))), nil
}

func count(targets int) string {
	if targets == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", targets)
}
