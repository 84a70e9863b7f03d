package runtime

import (
	"path"
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
}

// mostMounts bounds them, and systemDirs hold what no agent is shown: sockets of
// services, devices, the kernel.
const mostMounts = 32

var systemDirs = []string{"/dev", "/proc", "/run", "/sys", "/var/run"}

// setMounts takes those of the bottle and, over them, those of the command line.
func (p *Plan) setMounts(r Request, m []manifest.Mount) error {
	for _, text := range r.Mounts {
		parsed, err := parseMount(text)
		if err != nil {
			return err
		}
		m = append(slices.DeleteFunc(slices.Clone(m), func(other manifest.Mount) bool { return other.Target == parsed.Target }), parsed)
	}
	if len(m) > mostMounts {
		return invalid("%d mounts: at most %d", len(m), mostMounts)
	}
	for _, one := range m {
		plan := MountPlan(one)
		if err := plan.check(); err != nil {
			return err
		}
		if p.Workspace != nil && (within(p.Workspace.Target, plan.Target) || within(plan.Target, p.Workspace.Target)) {
			return invalid("mount target %q: the workspace is there", plan.Target)
		}
		for _, other := range p.Mounts {
			if within(other.Target, plan.Target) || within(plan.Target, other.Target) {
				return invalid("mount targets %q and %q lie in each other", other.Target, plan.Target)
			}
		}
		p.Mounts = append(p.Mounts, plan)
	}
	return nil
}

// Live says whether the agent writes to files of the host.
func (p *Plan) Live() bool {
	return p.Workspace != nil && p.Workspace.Mode == ModeBind || slices.ContainsFunc(p.Mounts, func(m MountPlan) bool { return m.Writable })
}

// parseMount reads SOURCE:TARGET[:rw|:ro].
func parseMount(text string) (m manifest.Mount, err error) {
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
	if !path.IsAbs(m.Target) || m.Target != path.Clean(m.Target) || reserved(m.Target) {
		return invalid("mount target %q: give an absolute path in the container that is its own, as /data", m.Target)
	}
	if !filepath.IsAbs(m.Source) && !strings.HasPrefix(m.Source, "~/") || strings.ContainsRune(m.Source, 0) {
		return invalid("mount source %q: give an absolute path of the host, or one from ~/", m.Source)
	}
	system := func(dir string) bool { return filepath.IsAbs(m.Source) && within(dir, m.Source) }
	if slices.ContainsFunc(systemDirs, system) || filepath.Clean(m.Source) == "/" {
		return invalid("mount source %q: services of the host have their sockets and devices there: name a directory of files", m.Source)
	}
	return nil
}
