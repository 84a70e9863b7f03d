// Package beneath opens what lies below a directory and nothing else: no link
// is followed, not even one within, and paths may be longer than the kernel
// takes at once.
package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// longest is what one call of the kernel is given of a path (PATH_MAX is 4096).
const longest = 4000

// Open opens a path below the directory dir. The caller closes the descriptor.
func Open(dir int, name string, flags int, mode uint32) (int, error) {
	at := dir
	for len(name) > longest {
		cut := strings.LastIndexByte(name[:longest], '/')
		if cut <= 0 {
			break
		}
		next, err := openat2(at, name[:cut], unix.O_PATH|unix.O_DIRECTORY, 0)
		if at != dir {
			_ = unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at, name = next, name[cut+1:]
	}
	fd, err := openat2(at, name, flags, mode)
	if at != dir {
		_ = unix.Close(at)
	}
	return fd, err
}

func openat2(dir int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW), Mode: uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	if name == "" {
		name = "."
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// failed names a path so that it can be shown: whoever made it chose the name.
func failed(op, name string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s %q: %w", op, name, err)
}

// Dir is a directory whose contents are named by paths from it. It keeps the
// last parent open, so it serves best in the order of directories. It is for
// one goroutine.
type Dir struct {
	top    int
	parent string
	fd     int
}

// In is a Dir on an open directory, which must stay open.
func In(top *os.File) *Dir { return &Dir{top: int(top.Fd()), fd: -1} }

// Parent returns the directory that name is in, and name's last element. The
// descriptor is the Dir's, until its next use.
func (d *Dir) Parent(name string) (fd int, base string, err error) {
	parent, base := path.Split(name)
	parent = strings.TrimSuffix(parent, "/")
	if parent == "" {
		return d.top, base, nil
	}
	if d.fd >= 0 && d.parent == parent {
		return d.fd, base, nil
	}
	d.Forget()
	if d.fd, err = Open(d.top, parent, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return -1, "", failed("open", parent, err)
	}
	d.parent = parent
	return d.fd, base, nil
}

// Open opens a path below the directory.
func (d *Dir) Open(name string, flags int, mode uint32) (*os.File, error) {
	fd, base, err := d.Parent(name)
	if err != nil {
		return nil, err
	}
	fd, err = openat2(fd, base, flags, mode)
	if err != nil {
		return nil, failed("open", name, err)
	}
	return os.NewFile(uintptr(fd), strconv.Quote(name)), nil
}

// Stat looks at a path below the directory, and at a link itself.
func (d *Dir) Stat(name string) (st unix.Stat_t, err error) {
	fd, base, err := d.Parent(name)
	if err != nil {
		return st, err
	}
	if base == "" {
		return st, unix.Fstat(fd, &st)
	}
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, failed("stat", name, err)
	}
	return st, nil
}

// Readlink reads a link below the directory.
func (d *Dir) Readlink(name string) (string, error) {
	fd, base, err := d.Parent(name)
	if err != nil {
		return "", err
	}
	target := make([]byte, 4096)
	n, err := unix.Readlinkat(fd, base, target)
	if err != nil {
		return "", failed("readlink", name, err)
	}
	return string(target[:n]), nil
}

// Remove removes what is at a path below the directory, with all in it. What is
// not there is removed.
func (d *Dir) Remove(name string) error {
	fd, base, err := d.Parent(name)
	if err != nil {
		return err
	}
	err = unix.Unlinkat(fd, base, 0)
	switch {
	case err == nil || errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return failed("remove", name, err)
	}
	parent, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := parent.RemoveAll(base); err != nil {
		return failed("remove", name, err)
	}
	return nil
}

// Forget closes the parent that is kept open.
func (d *Dir) Forget() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
	}
	d.fd = -1
}
