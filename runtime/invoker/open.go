package invoker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a regular file for reading with the user's rights. It never
// waits: a FIFO or a device is refused.
func (u User) Open(path string) (*os.File, error) {
	f, err := u.open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// OpenDir opens a directory with the user's rights. What is below it is to be
// opened from it, in Do.
func (u User) OpenDir(path string) (*os.File, error) {
	return u.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
}

// OpenAny opens what is at a path, of whatever kind, without starting or reading
// it: by the descriptor it can be looked at and shown elsewhere.
func (u User) OpenAny(path string) (*os.File, error) { return u.open(path, unix.O_PATH) }

// Stat looks at what is at a path, with the user's rights.
func (u User) Stat(path string) (fs.FileInfo, error) {
	f, err := u.OpenAny(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// IsDir says whether the user can see a directory there.
func (u User) IsDir(path string) bool {
	f, err := u.open(path, unix.O_PATH|unix.O_DIRECTORY)
	return err == nil && f.Close() == nil
}

// open does not follow what /proc shows of this process: by /proc/self/fd a
// user would reach, without a right to it, what root has open. Links in files'
// own directories are followed.
func (u User) open(path string, flags int) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_NO_MAGICLINKS}
	fd := -1
	err := u.Do(func() (err error) {
		for {
			if fd, err = unix.Openat2(unix.AT_FDCWD, path, &how); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("it goes through a link of /proc or too many links: name the file itself: %w", err)
	}
	if err != nil {
		return nil, u.explain(&fs.PathError{Op: "open", Path: path, Err: err})
	}
	return os.NewFile(uintptr(fd), path), nil
}
