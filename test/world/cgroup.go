package world

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one mounted cgroup file system.
type hierarchy struct {
	dir     string // where the machine has it mounted
	own     string // this process's group in it
	fstype  string
	options string // of version 1: the controllers
}

// hierarchies lists those in use. A version 2 tree beside version 1 has no
// controllers and is left out.
func hierarchies() ([]hierarchy, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for _, m := range mounts {
		h := hierarchy{dir: m.Mountpoint, fstype: m.FSType}
		if m.FSType == "cgroup2" {
			if m.Mountpoint != cgroupRoot {
				continue
			}
			// Groups with processes cannot hand controllers on, so not below our own.
			h.own = m.Mountpoint
		} else {
			h.options = v1Options(m.VFSOptions)
			h.own = filepath.Join(m.Mountpoint, v1Group(string(own), h.options))
		}
		// A later mount in the same place is what shows there.
		all = slices.DeleteFunc(all, func(o hierarchy) bool { return o.dir == h.dir })
		all = append(all, h)
	}
	if len(all) == 0 {
		return nil, errors.New("no cgroups are mounted below " + cgroupRoot)
	}
	return all, nil
}

// v1Options keeps the controllers or the name of a hierarchy.
func v1Options(super string) string {
	options := slices.DeleteFunc(strings.Split(super, ","), func(o string) bool {
		return slices.Contains([]string{"rw", "ro", "xattr", "none", "seclabel", "clone_children", "noprefix"}, o) ||
			strings.HasPrefix(o, "release_agent=")
	})
	return strings.Join(options, ",")
}

func v1Group(own, options string) string {
	for line := range strings.Lines(own) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && fields[1] == options {
			return fields[2]
		}
	}
	return "/"
}

// joinCgroups moves this process to new groups and makes them the roots of a
// cgroup namespace: of the calling thread, which has to be locked.
func joinCgroups(name string) ([]hierarchy, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		if err := h.join(name); err != nil {
			return nil, err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return nil, fmt.Errorf("cgroup namespace: %w", err)
	}
	return all, nil
}

func (h hierarchy) join(name string) error {
	dir := filepath.Join(h.own, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if slices.Contains(strings.Split(h.options, ","), "cpuset") {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(h.own, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, file), b, 0); err != nil { //nolint:gosec // paths of the kernel's own
				return err
			}
		}
	}
	if h.fstype == "cgroup2" {
		if err := handOn(h.own); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// handOn turns all controllers on for the children of a version 2 group.
func handOn(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(b)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil { //nolint:gosec // paths of the kernel's own
			return fmt.Errorf("controller %s in %s: %w", c, dir, err)
		}
	}
	return nil
}

// mountCgroups mounts what the cgroup namespace shows below a fresh /sys.
func mountCgroups(all []hierarchy) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if all[0].fstype == "cgroup2" {
		if err := mount("cgroup2", cgroupRoot, "cgroup2", flags, ""); err != nil {
			return err
		}
		leaf := filepath.Join(cgroupRoot, "world")
		if err := os.Mkdir(leaf, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
		return handOn(cgroupRoot)
	}
	if err := mount("tmpfs", cgroupRoot, "tmpfs", flags, "mode=755"); err != nil {
		return err
	}
	for _, h := range all {
		if err := h.mountV1(flags); err != nil {
			return err
		}
	}
	return nil
}

func (h hierarchy) mountV1(flags uintptr) error {
	dir := filepath.Join(cgroupRoot, filepath.Base(h.dir))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	options := h.options
	if strings.HasPrefix(options, "name=") {
		options = "none," + options
	}
	if err := mount("cgroup", dir, "cgroup", flags, options); err != nil {
		return err
	}
	for _, c := range strings.Split(h.options, ",") {
		if strings.Contains(h.options, ",") && c != filepath.Base(h.dir) {
			if err := os.Symlink(filepath.Base(h.dir), filepath.Join(cgroupRoot, c)); err != nil {
				return err
			}
		}
	}
	return nil
}

// thaw lets frozen processes go: they could not be killed.
func thaw() error {
	return eachGroup(filepath.Join(cgroupRoot, "freezer"), func(dir string) error {
		err := os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil // gone, or the root of the hierarchy
		}
		return err
	})
}

// removeCgroups removes the groups of a private host whose processes are dead.
func removeCgroups(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		var dirs []string
		if err := eachGroup(filepath.Join(h.own, name), func(dir string) error {
			dirs = append(dirs, dir)
			return nil
		}); err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := removeGroup(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeGroup waits for the kernel to finish the last processes of a group.
func removeGroup(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			return fmt.Errorf("remove cgroup %s (processes %q): %w", dir, bytes.Fields(procs), err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// eachGroup calls f for a group and all below it, parents first.
func eachGroup(dir string, f func(string) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.IsDir() {
			return err
		}
		return f(path)
	})
}
