package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// checkDirectories refuses directories that another user could replace, or put
// a link into: root writes and removes there. They need not be there yet.
func (c Config) checkDirectories() error {
	if os.Geteuid() != 0 {
		return nil // nothing that the caller could not do himself
	}
	return errors.Join(checkOwned("state-dir", c.StateDir), checkOwned("log-dir", c.LogDir), checkOwned("data-dir", c.DataDir))
}

func checkOwned(option, dir string) error {
	real, err := filepath.EvalSymlinks(existing(dir))
	if err != nil {
		return fmt.Errorf("--%s %s: %w", option, dir, err)
	}
	for _, path := range []string{filepath.Clean(dir), real} {
		for ; path != "/"; path = filepath.Dir(path) {
			if owner := foreign(path); owner != "" {
				return fmt.Errorf("--%s %s: %s %s: choose one that only root can change: %w", option, dir, path, owner, errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}

// existing is the nearest part of a path that is there.
func existing(path string) string {
	for {
		if _, err := os.Lstat(path); err == nil || path == "/" {
			return path
		}
		path = filepath.Dir(path)
	}
}

// foreign says who beside root can change what path names, if anybody can.
func foreign(path string) string {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		return "cannot be looked at"
	}
	const (
		systemGroups = 1000 // below: of the distribution, as in /var/log of Ubuntu, root:syslog 0775
		byGroup      = 0o020
		byAll        = 0o002
	)
	st, mode := info.Sys().(*syscall.Stat_t), info.Mode()
	switch {
	case st.Uid != 0:
		return fmt.Sprintf("belongs to user %d", st.Uid)
	case mode&fs.ModeSymlink != 0:
		return ""
	case !mode.IsDir():
		return "is not a directory"
	case mode&fs.ModeSticky != 0:
		return ""
	case mode&byAll != 0, mode&byGroup != 0 && st.Gid >= systemGroups:
		return "can be written by others"
	}
	return ""
}

// makeStateDir makes the state directory.
func (h *Host) makeStateDir() error {
	if err := onTmpfs(h.StateDir); err != nil {
		return err
	}
	if err := os.MkdirAll(h.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := checkOwned("state-dir", h.StateDir); err != nil { // another user may have been faster
		return err
	}
	return forRootAlone(h.StateDir)
}

// onTmpfs: what lies in the state directory must be gone after a reboot, as the
// namespaces are.
func onTmpfs(stateDir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(existing(stateDir), &st); err != nil {
		return fmt.Errorf("state directory %s: %w", stateDir, err)
	}
	if st.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("state directory %s is not on a tmpfs: use one below /run: %w", stateDir, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func forRootAlone(stateDir string) error {
	dir, err := os.Lstat(stateDir)
	if err != nil {
		return err
	}
	if !dir.IsDir() || dir.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("state directory %s is not a directory for root alone: use one of its own, with mode 0700: %w", stateDir, errdefs.ErrFailedPrecondition)
	}
	return nil
}
