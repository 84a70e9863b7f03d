package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func mounts(_ context.Context, p *Patient) Finding {
	if err := p.CheckMounts(); err != nil {
		return fail(words(err), "start carboy where containerd was started: leave out such directives of its unit")
	}
	return ok("carboy and containerd see the same")
}

func directories(_ context.Context, p *Patient) Finding {
	if err := p.CheckDirectories(); err != nil {
		return fail(words(err), "")
	}
	var missing []string
	for _, dir := range []string{p.StateDir, p.LogDir, p.DataDir} {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, dir)
		}
	}
	found := strings.Join([]string{p.StateDir, p.LogDir, p.DataDir}, ", ")
	if len(missing) > 0 {
		found += fmt.Sprintf(" (the first use makes %s)", strings.Join(missing, " and "))
	}
	return ok(found)
}

// wanted of cgroups; without cpu only --cpus is lost.
var wanted = []string{"memory", "pids", "cpu"}

func cgroups(_ context.Context, p *Patient) Finding {
	version, has := 2, []string(nil)
	if text, err := p.text("sys/fs/cgroup/cgroup.controllers"); err == nil {
		has = strings.Fields(text)
	} else {
		version, has = 1, p.mountedControllers()
	}
	missing := slices.DeleteFunc(slices.Clone(wanted), func(c string) bool { return slices.Contains(has, c) })
	found := fmt.Sprintf("version %d", version)
	switch {
	case len(missing) == 0:
		return ok(found + " with " + strings.Join(wanted, ", "))
	case slices.Equal(missing, []string{"cpu"}):
		return warn(found+" without the controller cpu: --cpus cannot be had", "boot with it enabled")
	}
	return fail(found+" without the controllers "+strings.Join(missing, ", "), "boot with them enabled (cgroup_enable=memory), and mount them below /sys/fs/cgroup")
}

// mountedControllers are those of version 1.
func (p *Patient) mountedControllers() (has []string) {
	for _, c := range wanted {
		if _, err := fs.Stat(p.files, "sys/fs/cgroup/"+c); err == nil {
			has = append(has, c)
		}
	}
	return has
}

// feature is one of the kernel's, asked by a call that cannot succeed: nil and
// every error but ENOSYS mean that it is there.
type feature struct {
	name, since string
	ask         func() error
}

var features = []feature{
	{"openat2", "5.6", func() error {
		fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH})
		if err == nil {
			return unix.Close(fd)
		}
		return err
	}},
	{"idmapped mounts", "5.12", func() error { return unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}) }},
}

func kernel(_ context.Context, p *Patient) Finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return failed(err)
	}
	found := "Linux " + unix.ByteSliceToString(name.Release[:])
	if _, err := fs.Stat(p.files, "proc/sys/kernel/seccomp/actions_avail"); err != nil {
		return fail(found+" without seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER")
	}
	for _, f := range features {
		if errors.Is(f.ask(), unix.ENOSYS) {
			return fail(fmt.Sprintf("%s without %s", found, f.name), "use Linux "+f.since+" or newer")
		}
	}
	if text, err := p.text("proc/filesystems"); err == nil && !slices.Contains(strings.Fields(text), "overlay") {
		return warn(found+" has no overlay file system loaded", "modprobe overlay")
	}
	return ok(found + ": seccomp, openat2, idmapped mounts, overlay")
}

// security modules confine containers under runc.
func security(_ context.Context, p *Patient) Finding {
	if enforce, err := p.text("sys/fs/selinux/enforce"); err == nil {
		if enforce != "1" {
			return warn("SELinux is permissive: it confines nothing", "setenforce 1")
		}
		return ok("SELinux enforces")
	}
	if enabled, err := p.text("sys/module/apparmor/parameters/enabled"); err != nil || enabled != "Y" {
		return ok("neither AppArmor nor SELinux: containers are confined by seccomp, capabilities and namespaces")
	}
	for _, path := range []string{"sbin/apparmor_parser", "usr/sbin/apparmor_parser"} {
		if _, err := fs.Stat(p.files, path); err == nil {
			return ok("AppArmor, profile carboy-default")
		}
	}
	return warn("AppArmor is on, and there is no apparmor_parser to load a profile", "apt install apparmor")
}

// clock: certificates are refused by one that is wrong by much. That is all
// that can be known without asking somebody.
func clock(ctx context.Context, p *Patient) Finding {
	const firstYear = 2026 // carboy is not older
	now := p.now().UTC()
	found := now.Format(time.RFC3339)
	if now.Year() < firstYear {
		return fail(found+" is in the past", "set the clock: certificates are not valid yet")
	}
	if p.daemon == nil {
		return ok(found)
	}
	images, err := p.daemon.Images(ctx)
	if err != nil {
		return warn(words(err), "")
	}
	const slack = 5 * time.Minute
	for _, img := range images {
		if img.Updated.After(now.Add(slack)) {
			return warn(fmt.Sprintf("%s, and image %s came at %s, which is later", found, img.Ref, img.Updated.UTC().Format(time.RFC3339)), "set the clock")
		}
	}
	return ok(found)
}
