// Package invoker is who asks: the user behind sudo, else the caller. Every
// path that a flag, a manifest or the environment names is opened here with
// that user's rights, so that a limited sudo rule for carboy does not become a
// way to read root's files.
//
// It decides nothing about what a user may do with carboy.
package invoker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// User is the invoker.
type User struct {
	UID    int
	GID    int
	Groups []int
	Name   string
	Home   string
}

// Current reads SUDO_UID and SUDO_GID where the caller is root, which sudo
// sets for every rule, and takes the caller otherwise.
func Current() (User, error) {
	uid := os.Getuid()
	if uid == 0 && os.Getenv("SUDO_UID") != "" {
		return behindSudo()
	}
	who, err := lookup(uid, os.Getgid())
	// Not behind sudo, which may keep either user's.
	if home := os.Getenv("HOME"); err == nil && filepath.IsAbs(home) {
		who.Home = home
	}
	return who, err
}

// Root is the user whose process this is behind sudo.
func Root() (User, error) { return lookup(0, 0) }

func behindSudo() (User, error) {
	uid, err := number("SUDO_UID")
	if err != nil {
		return User{}, err
	}
	gid := nobody
	if os.Getenv("SUDO_GID") != "" {
		if gid, err = number("SUDO_GID"); err != nil {
			return User{}, err
		}
	}
	return lookup(uid, gid)
}

func number(variable string) (int, error) {
	text := os.Getenv(variable)
	n, err := strconv.ParseUint(text, 10, 31) // -1 changes no identity
	if err != nil {
		return 0, fmt.Errorf("%s is %q, not a number of a user or group", variable, text)
	}
	return int(n), nil
}

// lookup takes gid for a user that the host's list does not hold: he owns
// nothing but what his numbers own.
func lookup(uid, gid int) (User, error) {
	u, err := user.LookupId(strconv.Itoa(uid))
	var unknown user.UnknownUserIdError
	if errors.As(err, &unknown) {
		return User{UID: uid, GID: gid, Name: strconv.Itoa(uid)}, nil
	}
	if err != nil {
		return User{}, fmt.Errorf("look up user %d: %w", uid, err)
	}
	who := User{UID: uid, Name: u.Username, Home: u.HomeDir}
	if who.GID, err = strconv.Atoi(u.Gid); err != nil {
		return User{}, fmt.Errorf("group of user %d: %w", uid, err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("groups of user %s: %w", u.Username, err)
	}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			who.Groups = append(who.Groups, n)
		}
	}
	return who, nil
}

const nobody = 65534

// ConfigDir is where the user keeps carboy's files.
func (u User) ConfigDir() string {
	if u.Home == "" {
		return ""
	}
	return filepath.Join(u.Home, ".config", "carboy")
}

// RealPath is the path, without links, of a regular file that the user can
// open. Root is to use it only where another file in its place does no harm:
// the user may own a directory on the way.
func (u User) RealPath(path string) (_ string, err error) {
	f, err := u.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// ReadFile reads a regular file of at most limit bytes with the user's rights.
func (u User) ReadFile(path string, limit int64) (_ []byte, err error) {
	f, err := u.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return b, err
}

func (u User) explain(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0 && u.UID != 0 {
		return fmt.Errorf("%w (opened as %s, who called sudo)", err, u.Name)
	}
	return err
}

// Do runs f on a thread of its own that has the user's file system identity
// and no capability. The thread is thrown away, and no other sees the change:
// setgroups and the setfs calls are made raw, because Go's own change every
// thread.
func (u User) Do(f func() error) error {
	if os.Geteuid() != 0 || u.UID == 0 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := u.assume(); err != nil {
			done <- fmt.Errorf("take on the rights of %s: %w", u.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

func (u User) assume() error {
	groups := []uint32{uint32(u.GID)}
	for _, g := range u.Groups {
		groups = append(groups, uint32(g))
	}
	if err := setgroups(groups); err != nil {
		return err
	}
	// These two report nothing; the second call shows what is in force.
	if _, err := unix.SetfsgidRetGid(u.GID); err != nil {
		return err
	}
	if gid, err := unix.SetfsgidRetGid(-1); err != nil || gid != u.GID {
		return errors.Join(syscall.EPERM, err)
	}
	if _, err := unix.SetfsuidRetUid(u.UID); err != nil {
		return err
	}
	if uid, err := unix.SetfsuidRetUid(-1); err != nil || uid != u.UID {
		return errors.Join(syscall.EPERM, err)
	}
	// The kernel took those of files away; CAP_SYS_PTRACE would still open
	// every /proc/PID/root and /proc/PID/fd.
	head, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	return unix.Capset(&head, &none[0])
}
