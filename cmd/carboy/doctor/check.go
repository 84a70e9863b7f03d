// Package doctor looks at a host for what carboy needs of it: each check is a
// name and a function, and says what it found and the way out. It changes no
// more than a run that ends at once; what is mended is mended by package runtime
// when Fix is called.
//
// It is no proof that a bottle is sealed: that is read back at each start.
package doctor

import (
	"context"
	"os"
	"strings"

	"github.com/containerd/errdefs"

	"carboy/runtime/proxy/policy"
)

// Level is how bad a finding is.
type Level string

// From good to bad: with a warning bottles run, or a part of carboy is not
// used; with a failure they do not.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is what a check came to. Its text is safe for a terminal.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	Out   string `json:"out,omitempty"` // what to do about it
}

// check is one thing to look at.
type check struct {
	name   string
	root   bool // only root can look
	daemon bool // only with a containerd that answers
	packet bool // only where Patient.Packet asks for it
	look   func(context.Context, *Patient) Finding
}

// checks are told in this order: what the rest rests on comes first.
var checks = []check{
	{name: "containerd", look: containerd},
	{name: "snapshotter", daemon: true, look: snapshotter},
	{name: "namespace", daemon: true, look: namespace},
	{name: "disk", daemon: true, look: disk},
	{name: "mounts", root: true, daemon: true, look: mounts},
	{name: "directories", look: directories},
	{name: "helpers", look: helpers},
	{name: "runc", root: true, daemon: true, look: runc},
	{name: "runsc", root: true, daemon: true, look: runsc},
	{name: "cni", look: plugins},
	{name: "nftables", root: true, look: nftables},
	{name: "firewall", root: true, look: firewall},
	{name: "forwarding", look: forwarding},
	{name: "range", look: addresses},
	{name: "ipv4", look: defaultRoute},
	{name: "resolvers", look: resolvers},
	{name: "uplink", root: true, daemon: true, packet: true, look: way},
	{name: "cgroups", look: cgroups},
	{name: "kernel", look: kernel},
	{name: "security", look: security},
	{name: "clock", look: clock},
	{name: "proxy", daemon: true, look: engine},
	{name: "logins", look: logins},
	{name: "leftovers", root: true, daemon: true, look: leftovers},
}

// Examine runs every check.
func Examine(ctx context.Context, p *Patient) Report {
	r := Report{Build: p.Build, Level: OK}
	for _, c := range checks {
		if c.packet && !p.Packet {
			continue
		}
		f := c.run(ctx, p, os.Geteuid() == 0)
		r.Checks = append(r.Checks, f)
		r.Level = worse(r.Level, f.Level)
	}
	return r
}

func (c check) run(ctx context.Context, p *Patient, root bool) (f Finding) {
	switch {
	case c.root && !root:
		f = warn("not looked at: that takes root", "run `sudo carboy doctor`")
	case c.daemon && p.daemon == nil:
		f = warn("not looked at: containerd does not answer", "")
	default:
		f = c.look(ctx, p)
	}
	f.Check, f.Found, f.Out = c.name, policy.OneLine(f.Found), policy.OneLine(f.Out)
	return f
}

func worse(a, b Level) Level {
	if a == Fail || b == OK {
		return a
	}
	return b
}

func ok(found string) Finding        { return Finding{Level: OK, Found: found} }
func warn(found, out string) Finding { return Finding{Level: Warn, Found: found, Out: out} }
func fail(found, out string) Finding { return Finding{Level: Fail, Found: found, Out: out} }

// failed is for errors that say themselves what to do.
func failed(err error) Finding { return fail(words(err), "") }

// words is an error without the class at its end, which is for programs.
func words(err error) string {
	text := err.Error()
	for _, class := range []error{errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrUnavailable, errdefs.ErrPermissionDenied} {
		text = strings.ReplaceAll(text+"\n", ": "+class.Error()+"\n", "\n")
		text = strings.TrimSuffix(text, "\n")
	}
	return text
}
