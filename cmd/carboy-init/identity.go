package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// identity is whom a command runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
	name     string
}

// lookupUser resolves name, uid or either with :group in the container's own
// user database.
func lookupUser(root, spec string) (identity, error) {
	passwd, err := readDatabase(path.Join(root, "etc/passwd"))
	if err != nil {
		return identity{}, err
	}
	group, err := readDatabase(path.Join(root, "etc/group"))
	if err != nil {
		return identity{}, err
	}
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		return identity{}, fmt.Errorf("user %q in the image: %w", spec, err)
	}
	who := identity{uid: uint32(u.Uid), gid: uint32(u.Gid), home: u.Home}
	for _, g := range u.Sgids {
		who.groups = append(who.groups, uint32(g))
	}
	if named, err := user.ParsePasswdFilter(strings.NewReader(passwd), func(e user.User) bool { return e.Uid == u.Uid }); err == nil && len(named) > 0 {
		who.name = named[0].Name
	}
	return who, nil
}

// asUser calls f with the user's rights to files. They are this thread's alone:
// the raw calls bypass the Go runtime, which would change every thread.
func asUser(who identity, f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := take(who); err != nil {
		return errors.Join(fmt.Errorf("become user %d: %w", who.uid, err), take(identity{}))
	}
	err = f()
	if back := take(identity{}); back != nil {
		panic(fmt.Sprintf("become root again: %v", back)) // nothing may run on this thread
	}
	return errors.Join(err, hide())
}

// take sets the effective ids and the groups of the calling thread. Root comes
// first, because nobody else may set groups.
func take(who identity) error {
	const unchanged = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, 0, unchanged); errno != 0 {
		return errno
	}
	var groups unsafe.Pointer
	if len(who.groups) > 0 {
		groups = unsafe.Pointer(&who.groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(who.groups)), uintptr(groups), 0); errno != 0 {
		return errno
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(who.gid), unchanged); errno != 0 {
		return errno
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(who.uid), unchanged); errno != 0 {
		return errno
	}
	return nil
}

// readDatabase reads at most 1 MiB of a regular file and never waits: the
// image may hold a FIFO or a device by that name. A missing file is empty.
func readDatabase(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	const limit = 1 << 20
	if !st.Mode().IsRegular() || st.Size() > limit {
		return "", fmt.Errorf("%s is not a regular file of at most 1 MiB", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit))
	return string(b), err
}

// completeEnv adds what a login would: PATH, HOME and USER where they are
// missing.
func completeEnv(env []string, who identity) []string {
	env = slices.Clone(env)
	add := func(name, value string) {
		if value != "" && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			env = append(env, name+"="+value)
		}
	}
	add("PATH", defaultPath)
	add("HOME", who.home)
	add("USER", who.name)
	return env
}

func searchPath(env []string) []string {
	for i := len(env) - 1; i >= 0; i-- {
		if list, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return strings.Split(list, ":")
		}
	}
	return nil
}
