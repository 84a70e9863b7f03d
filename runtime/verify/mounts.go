package verify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// mounts: what comes from the host is carboy-init and the bottle's own files, as
// specified and as it is now.
func (c Container) mounts() error {
	var errs []error
	for _, m := range c.Spec.Mounts {
		errs = append(errs, c.checkSource(m))
	}
	if !c.Sandbox { // whose mounts are its file server's affair
		errs = append(errs, c.liveMounts())
	}
	return errors.Join(errs...)
}

func (c Container) checkSource(m specs.Mount) error {
	bound := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	if !bound && !filepath.IsAbs(m.Source) {
		return nil // the kernel's
	}
	if m.Source != c.Init && !beneath(c.Dir, m.Source) {
		return fmt.Errorf("%s of the host is specified to be mounted at %s", m.Source, m.Destination)
	}
	info, err := os.Lstat(m.Source)
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%s, which is mounted at %s, is neither a directory nor a file", m.Source, m.Destination)
	}
	return nil
}

func beneath(dir, path string) bool {
	return strings.HasPrefix(filepath.Clean(path), filepath.Clean(dir)+"/")
}

// kernels are directories in which the runtime mounts the kernel's own, and
// covers some of it.
var kernels = []string{"/dev", "/proc", "/sys"}

func (c Container) liveMounts() error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", c.PID))
	if err != nil {
		return err
	}
	defer f.Close()
	all, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return fmt.Errorf("mounts of the container: %w", err)
	}
	var errs []error
	for _, m := range all {
		errs = append(errs, c.checkMount(m))
	}
	return errors.Join(errs...)
}

func (c Container) checkMount(m *mountinfo.Info) error {
	specified := func(s specs.Mount) bool { return filepath.Clean(s.Destination) == m.Mountpoint }
	kernel := func(dir string) bool { return beneath(dir, m.Mountpoint) }
	// No link is followed at its end; the path itself is the kernel's.
	info, err := os.Lstat(fmt.Sprintf("/proc/%d/root%s", c.PID, m.Mountpoint))
	switch {
	case err == nil && info.Mode()&os.ModeSocket != 0:
		return fmt.Errorf("a socket is mounted at %s", m.Mountpoint)
	case m.Mountpoint == "/" || slices.ContainsFunc(c.Spec.Mounts, specified) || slices.ContainsFunc(kernels, kernel):
		return nil
	}
	return fmt.Errorf("something is mounted at %s that was not specified", m.Mountpoint)
}
