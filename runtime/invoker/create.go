package invoker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Output is a file that appears at its path whole, or not at all.
type Output struct {
	*os.File
	user User
	dir  *os.File
	temp string // its name in dir until Commit
	name string
}

// Create makes a file with the user's rights. What is at path is kept until
// Commit, and is refused unless it is a regular file. The caller ends it with
// Commit or Discard.
func (u User) Create(path string) (*Output, error) {
	path = filepath.Clean(path)
	dir, err := u.open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	o := &Output{user: u, dir: dir, temp: "." + name + "." + rand.Text(), name: name}
	err = u.Do(func() error {
		if err := replaceable(dir, name); err != nil {
			return err
		}
		fd, err := unix.Openat(int(dir.Fd()), o.temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err == nil {
			o.File = os.NewFile(uintptr(fd), path)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(u.explain(&fs.PathError{Op: "create", Path: path, Err: err}), dir.Close())
	}
	return o, nil
}

// replaceable allows a regular file, and nothing.
func replaceable(dir *os.File, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("something that is not a regular file is there")
	}
	return err
}

// Commit puts the file at its path. It is on disk then.
func (o *Output) Commit() error { return o.commit(0) }

// CommitNew is Commit that fails with fs.ErrExist where something is at the path
// by now. Not every file system can do that: it fails there.
func (o *Output) CommitNew() error { return o.commit(unix.RENAME_NOREPLACE) }

func (o *Output) commit(flags uint) error {
	if err := o.Sync(); err != nil {
		return errors.Join(err, o.Discard())
	}
	dir := int(o.dir.Fd())
	err := o.user.Do(func() error { return unix.Renameat2(dir, o.temp, dir, o.name, flags) })
	if err != nil {
		return errors.Join(fmt.Errorf("put the file in place: %w", o.user.explain(err)), o.Discard())
	}
	return errors.Join(o.Close(), o.dir.Close())
}

// Discard leaves nothing.
func (o *Output) Discard() error {
	err := o.user.Do(func() error { return unix.Unlinkat(int(o.dir.Fd()), o.temp, 0) })
	if err != nil {
		err = fmt.Errorf("remove the unfinished file: %w", err)
	}
	return errors.Join(err, o.Close(), o.dir.Close())
}
