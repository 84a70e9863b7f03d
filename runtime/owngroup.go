package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// supervisorGroup is that of a supervisor in the background: what ends its
// caller's session or service does not end the bottle.
func (r Record) supervisorGroup() string { return "/carboy-" + r.Instance + "-s" }

// Separate moves this process into a control group of its own, in each hierarchy
// that lets it. Down moves it back.
func (b *Bottle) Separate() {
	for _, top := range hierarchies() {
		dir := filepath.Join(top, b.supervisorGroup())
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue // the cpuset's wants settings, and a delegated one is not ours to divide
		}
		if err := joinGroup(dir); err != nil {
			_ = os.Remove(dir) // likewise
		}
	}
}

// rejoin leaves those groups for the tops of their hierarchies, and removes them.
func (b *Bottle) rejoin() error {
	var errs []error
	for _, top := range hierarchies() {
		dir := filepath.Join(top, b.supervisorGroup())
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		errs = append(errs, joinGroup(top), os.Remove(dir))
	}
	return errors.Join(errs...)
}

func joinGroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// hierarchies are the tops of version 1's, or that of version 2's only one.
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.procs")); err == nil {
		return []string{cgroupRoot}
	}
	procs, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs")) // the pattern is good
	var tops []string
	for _, p := range procs {
		if real, err := filepath.EvalSymlinks(filepath.Dir(p)); err == nil && real == filepath.Dir(p) {
			tops = append(tops, real) // and not cpu, which leads to cpu,cpuacct
		}
	}
	return tops
}
