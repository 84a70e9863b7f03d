package invoker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteNew makes a file that only the user can read, with his rights, and the
// directories on the way to it. Where something is already, it fails with
// fs.ErrExist.
func (u User) WriteNew(path string, data []byte) error {
	path = filepath.Clean(path)
	dir, err := u.makeDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	var f *os.File
	err = u.Do(func() error {
		fd, err := unix.Openat(int(dir.Fd()), filepath.Base(path), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err == nil {
			f = os.NewFile(uintptr(fd), path)
		}
		return err
	})
	if err != nil {
		return u.explain(&fs.PathError{Op: "create", Path: path, Err: err})
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, u.Do(func() error { return unix.Unlinkat(int(dir.Fd()), filepath.Base(path), 0) }))
	}
	return err
}

// makeDir opens a directory that is made if it has to be.
func (u User) makeDir(path string) (*os.File, error) {
	dir, err := u.open(path, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
		return dir, err
	}
	parent, err := u.makeDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	err = u.Do(func() error { return unix.Mkdirat(int(parent.Fd()), filepath.Base(path), 0o755) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, u.explain(&fs.PathError{Op: "mkdir", Path: path, Err: err})
	}
	return u.open(path, unix.O_PATH|unix.O_DIRECTORY)
}

// TempDir makes a directory that only the user can enter.
func (u User) TempDir(pattern string) (path string, err error) {
	err = u.Do(func() error {
		path, err = os.MkdirTemp("", pattern)
		return err
	})
	return path, err
}

// RemoveAll removes what TempDir made, with all in it.
func (u User) RemoveAll(path string) error {
	return u.Do(func() error { return os.RemoveAll(path) })
}
