package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// processes lists all but this one, PID 1 and the containerds. A zombie has
// ended.
func (w *World) processes(context.Context) ([]string, error) {
	ours := []int{1, os.Getpid()}
	w.mu.Lock()
	for _, c := range w.containerds {
		ours = append(ours, c.Pid())
	}
	w.mu.Unlock()
	var lines []string
	err := eachProcess(func(pid int, dir string) error {
		if slices.Contains(ours, pid) {
			return nil
		}
		if state, err := processState(filepath.Join(dir, "stat")); err != nil || state == 'Z' {
			return err
		}
		argv, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			return err
		}
		words := strings.Fields(strings.ReplaceAll(string(argv), "\x00", " "))
		lines = append(lines, fmt.Sprintf("%d %s", pid, strings.Join(words[:min(len(words), 10)], " ")))
		return nil
	})
	return lines, err
}

// processState reads the letter of a /proc/.../stat file, which is behind the
// name; a name may hold anything.
func processState(file string) (byte, error) {
	stat, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if end := bytes.LastIndexByte(stat, ')'); end >= 0 && len(stat) > end+2 {
		return stat[end+2], nil
	}
	return 0, fmt.Errorf("%s: %q", file, stat)
}

// netNamespaces lists the network namespaces that a process is in, or that are
// mounted.
func netNamespaces(context.Context) ([]string, error) {
	found := map[string]bool{}
	err := eachProcess(func(_ int, dir string) error {
		ns, err := os.Readlink(filepath.Join(dir, "ns/net"))
		if err == nil {
			found[ns] = true
		}
		if errors.Is(err, fs.ErrPermission) {
			// The kernel's answer for a process that has just ended.
			_, err = os.Stat(filepath.Join(dir, "stat"))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	mounted, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("nsfs"))
	for _, m := range mounted {
		if strings.HasPrefix(m.Root, "net:") {
			found[m.Root] = true
		}
	}
	var lines []string
	for ns := range found {
		lines = append(lines, ns)
	}
	return lines, err
}

// eachProcess passes over those that end meanwhile.
func eachProcess(f func(pid int, dir string) error) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if err := f(pid, dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func mounts(context.Context) ([]string, error) {
	all, err := mountinfo.GetMounts(nil)
	var lines []string
	for _, m := range all {
		lines = append(lines, fmt.Sprintf("%s %s %s", m.Mountpoint, m.FSType, m.Root))
	}
	return lines, err
}

// cgroups lists all but the hierarchies' own roots: they are the world's alone.
func cgroups(context.Context) ([]string, error) {
	var lines []string
	err := eachGroup(cgroupRoot, func(dir string) error {
		lines = append(lines, dir)
		return nil
	})
	return lines, err
}

func sysctls(context.Context) ([]string, error) {
	var lines []string
	for _, name := range []string{
		"ipv4/ip_forward", "ipv4/conf/all/forwarding", "ipv4/conf/default/forwarding", "ipv6/conf/all/forwarding",
		"ipv6/conf/default/forwarding", "ipv4/conf/all/rp_filter", "ipv4/conf/all/route_localnet", "ipv4/conf/all/arp_ignore",
	} {
		b, err := os.ReadFile(filepath.Join("/proc/sys/net", name))
		if err != nil {
			return nil, err
		}
		lines = append(lines, name+" = "+strings.TrimSpace(string(b)))
	}
	return lines, nil
}

// unmountBelow takes away what containers left mounted below a directory.
func unmountBelow(dir string) error {
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	for _, m := range slices.Backward(found) {
		if e := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", m.Mountpoint, e))
		}
	}
	return err
}
