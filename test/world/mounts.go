package world

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// overlaid are directories that get a layer of their own, in memory, over the
// machine's; hidden are those that are empty at first.
var (
	overlaid = []string{"/etc", "/var/log", "/var/lib"}
	hidden   = []string{"/etc/carboy", "/var/log/carboy", "/var/lib/carboy", "/var/lib/cni"}
)

const resolvConf = "nameserver " + Resolver + "\n"

// makeMounts gives the new mount namespace its own /proc, /sys, /run and
// writable places. dir is on the machine's disk.
func makeMounts(dir string, groups []hierarchy) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mountKernel(groups); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	layers := filepath.Join(dir, "layers")
	if err := tmpfs(layers); err != nil {
		return err
	}
	for _, d := range overlaid {
		if err := overlay(d, layers); err != nil {
			return err
		}
	}
	home, err := configHome(layers)
	if err != nil {
		return err
	}
	for _, d := range append(hidden, home) {
		if err := tmpfs(d); err != nil {
			return err
		}
	}
	// It may be a link to below /run, which is empty now.
	if err := os.Remove("/etc/resolv.conf"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile("/etc/resolv.conf", []byte(resolvConf), 0o644)
}

// mountKernel mounts /proc for the new processes, /sys for the new network and
// the private cgroups below it.
func mountKernel(groups []hierarchy) error {
	before, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("securityfs", "selinuxfs"))
	if err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := mount("proc", "/proc", "proc", flags, ""); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", flags, ""); err != nil {
		return err
	}
	for _, m := range before {
		if err := mount(m.FSType, m.Mountpoint, m.FSType, flags, ""); err != nil {
			return err
		}
	}
	return mountCgroups(groups)
}

// configHome returns root's ~/.config. Where there is none it gives the home
// directory a layer of its own, through which its other directories show.
func configHome(layers string) (string, error) {
	root, err := user.LookupId("0")
	if err != nil {
		return "", err
	}
	home := root.HomeDir
	config := filepath.Join(home, ".config")
	if _, err := os.Stat(config); err == nil {
		return config, nil
	}
	lower := filepath.Join(layers, "home")
	if err := os.Mkdir(lower, 0o700); err != nil { //nolint:gosec // below a directory of our own
		return "", err
	}
	if err := mount(home, lower, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", err
	}
	if err := overlay(home, layers); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(lower)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := mount(filepath.Join(lower, e.Name()), filepath.Join(home, e.Name()), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return "", err
		}
	}
	return config, nil
}

// overlay refuses to hide the working directory, whose files are to stay.
func overlay(dir, layers string) error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	if strings.HasPrefix(cwd, dir+"/") && strings.HasPrefix(dir, "/var/") {
		return fmt.Errorf("%s is below %s, which a private host covers: work elsewhere", cwd, dir)
	}
	name := strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-")
	upper, work := filepath.Join(layers, name), filepath.Join(layers, name+".work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil { //nolint:gosec // below a directory of our own
			return err
		}
	}
	return mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work)
}

func tmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a fixed directory of the system
		return err
	}
	return mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s %s: %w", fstype, target, err)
	}
	return nil
}
