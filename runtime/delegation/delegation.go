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
	if !delegated(filepath.Join(top, group)) {
		return "", nil
	}
	dir, err := os.OpenRoot(filepath.Join(top, group))
	if err != nil {
		return "", fmt.Errorf("delegated control group: %w", err)
	}
	defer dir.Close()
	alone, err := moveToLeaf(dir)
	if err != nil {
		return "", fmt.Errorf("delegated control group %s: %w", group, err)
	}
	if !alone {
		group = ""
	}
	return group, nil
}

// moveToLeaf leaves a group without processes, unless others are in it: a parent
// or a shell is not ours to move.
func moveToLeaf(dir *os.Root) (alone bool, err error) {
	own := strconv.Itoa(os.Getpid())
	members, err := dir.ReadFile("cgroup.procs")
	if err != nil || strings.TrimSpace(string(members)) != own {
		return false, err
	}
	if err := dir.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	return true, dir.WriteFile(path.Join(leaf, "cgroup.procs"), []byte(own), 0)
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
