// Package delegation finds the control group that systemd has left to this
// process, so that what it starts is held by the limits of its unit. What is in
// that group is the caller's business.
package delegation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchy is where version 2 of control groups is mounted.
const hierarchy = "/sys/fs/cgroup"

// leaf is the group below the unit's in which this process goes on.
const leaf = "supervisor"

// Claim returns the unit's group, as a path below the mount of version 2, where
// systemd delegated it and nobody but this process is in it. Else the path is
// empty, and all is as before. This process moves to a group below, as no group
// has both processes and limited groups (cgroup-v2.rst, No Internal Process
// Constraint). systemd removes both when the unit ends.
func Claim() (group string, err error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	group, ok := unified(string(own))
	if !ok {
		return "", nil
	}
	return claim(hierarchy, group)
}

// unified is the one group of a process on a host with version 2 alone
// (cgroups(7), /proc/pid/cgroup).
func unified(text string) (group string, ok bool) {
	group, ok = strings.CutPrefix(strings.TrimSuffix(text, "\n"), "0::")
	return group, ok && path.Clean(group) == group && group != "/" && !strings.Contains(group, "\n") && !strings.HasPrefix(group, "/..")
}

func claim(top, group string) (string, error) {
	dir := filepath.Join(top, group)
	if !delegated(dir) {
		return "", nil
	}
	own := strconv.Itoa(os.Getpid())
	members, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return "", fmt.Errorf("delegated control group: %w", err)
	}
	if strings.TrimSpace(string(members)) != own { // others' parents and shells are not ours to move
		return "", nil
	}
	below := filepath.Join(dir, leaf)
	if err := os.Mkdir(below, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("delegated control group: %w", err)
	}
	if err := os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte(own), 0); err != nil {
		return "", fmt.Errorf("delegated control group: %w", err)
	}
	return group, nil
}

// delegated reads the mark that systemd sets (systemd.io, CGROUP_DELEGATION; the
// first since version 251).
func delegated(dir string) bool {
	for _, mark := range []string{"user.delegate", "trusted.delegate"} {
		value := make([]byte, 1)
		if n, err := unix.Getxattr(dir, mark, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}
