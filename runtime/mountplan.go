package runtime

import (
	"path/filepath"
	"slices"
	"strings"

	"carboy/runtime/manifest"
)

// MountPlan is a file or directory of the host that the agent sees.
type MountPlan struct {
	Source   string `json:"source"` // absolute, or from ~/, the caller's home
	Target   string `json:"target"`
	Writable bool   `json:"writable"`

	at manifest.Place
}

// mostMounts bounds them.
const mostMounts = 32

// setMounts takes those of the bottle and, over them, those of the command line.
func (p *Plan) setMounts(r Request, b manifest.Bottle) error {
	var mounts []MountPlan
	for _, m := range b.Mounts {
		mounts = append(mounts, MountPlan{Source: m.Source, Target: m.Target, Writable: m.Writable, at: b.At("mounts", m.Target)})
	}
	for _, text := range r.Mounts {
		parsed, err := parseMount(text)
		if err != nil {
			return err
		}
		mounts = append(slices.DeleteFunc(mounts, func(other MountPlan) bool { return other.Target == parsed.Target }), parsed)
	}
	if len(mounts) > mostMounts {
		return ifWritten(len(r.Mounts) == 0, b.At("mounts")).Fault(invalid("%d mounts: at most %d", len(mounts), mostMounts))
	}
	for _, m := range mounts {
		if err := m.check(); err != nil {
			return m.at.Fault(err)
		}
		if err := m.alone(p); err != nil {
			return m.at.Fault(err)
		}
		p.Mounts = append(p.Mounts, m)
	}
	return nil
}

// alone refuses a target that is another's.
func (m MountPlan) alone(p *Plan) error {
	overlaps := func(target string) bool { return within(target, m.Target) || within(m.Target, target) }
	if p.Workspace != nil && overlaps(p.Workspace.Target) {
		return invalid("mount target %q: the workspace is there", m.Target)
	}
	for _, other := range p.Mounts {
		if overlaps(other.Target) {
			return invalid("mount targets %q and %q lie in each other", other.Target, m.Target)
		}
	}
	return nil
}

// Live says whether the agent writes to files of the host.
func (p *Plan) Live() bool {
	return p.Workspace != nil && p.Workspace.Mode == ModeBind || slices.ContainsFunc(p.Mounts, func(m MountPlan) bool { return m.Writable })
}

// parseMount reads SOURCE:TARGET[:rw|:ro].
func parseMount(text string) (m MountPlan, err error) {
	parts := strings.Split(text, ":")
	if len(parts) == 3 && (parts[2] == "rw" || parts[2] == "ro") {
		m.Writable = parts[2] == "rw"
		parts = parts[:2]
	}
	if len(parts) != 2 {
		return m, invalid("mount %q: give SOURCE:TARGET, with :rw if the agent may write to it", text)
	}
	m.Source, m.Target = parts[0], parts[1]
	if !strings.HasPrefix(m.Source, "~/") {
		m.Source, err = filepath.Abs(m.Source)
	}
	return m, err
}

func (m MountPlan) check() error {
	if err := manifest.CheckTarget(m.Target); err != nil {
		return invalid("mount target %w", err)
	}
	if err := manifest.CheckSource(m.Source); err != nil {
		return invalid("mount source %w", err)
	}
	return nil
}
