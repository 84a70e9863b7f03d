package saved

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"carboy/runtime/egress"
	"carboy/runtime/manifest"
	"carboy/runtime/manifest/presets"
	"carboy/runtime/proxy/policy"
)

// CheckDenied is an error of class errdefs.ErrFailedPrecondition where a start
// would still allow what a request denies. It names where that is written.
func (m Manifest) CheckDenied(r egress.Request) error {
	if r.Do != egress.Deny {
		return nil
	}
	patterns, err := r.Patterns()
	if err != nil {
		return err
	}
	for _, host := range m.Allow {
		p, err := policy.ParsePattern(host)
		if err != nil {
			return err
		}
		for _, denied := range patterns {
			if egress.Reaches(p, denied) {
				return fmt.Errorf("%s would still be allowed by %s, which is %s: change that: %w", denied, p, m.origin(p), errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}

// Live is a request without the hosts that are denied already and only have to be
// taken out of the manifest.
func (m Manifest) Live(r egress.Request, v egress.View) egress.Request {
	if r.Do != egress.Deny {
		return r
	}
	denied := func(host string) bool {
		p, err := policy.ParsePattern(host)
		return err == nil && slices.ContainsFunc(m.Allow, func(entry string) bool { return denies([]policy.Pattern{p}, entry) }) &&
			!slices.ContainsFunc(v.Hosts, func(h egress.Host) bool { return h.State != "denied" && reaches(h.Host, p) })
	}
	r.Hosts = slices.DeleteFunc(slices.Clone(r.Hosts), denied)
	return r
}

func reaches(host string, denied policy.Pattern) bool {
	p, err := policy.ParsePattern(host)
	return err != nil || egress.Reaches(p, denied)
}

// origin is where a pattern comes from.
func (m Manifest) origin(p policy.Pattern) string {
	is := func(host string) bool { other, err := policy.ParsePattern(host); return err == nil && other == p }
	e := m.Bottle.Egress
	if i := slices.IndexFunc(e.Allow, func(a manifest.Allowed) bool { return is(a.Host) }); i >= 0 {
		return "in " + m.Bottle.At("egress", "allow", e.Allow[i].Host).String()
	}
	for _, name := range e.Presets {
		preset, _ := presets.Find(name)
		if slices.ContainsFunc(preset.Hosts, func(h presets.Host) bool { return is(h.Host) }) {
			return fmt.Sprintf("of preset %s in %s", name, m.Bottle.At("egress", "presets", name))
		}
	}
	return "not of egress.allow in " + m.Bottle.At().String()
}
