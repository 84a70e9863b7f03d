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
	path string
}

// Create makes a file with the user's rights. What is at path is kept until
// Commit, and is refused unless it is a regular file. The caller ends it with
// Commit or Discard.
func (u User) Create(path string) (*Output, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	o := &Output{user: u, path: path}
	err = u.Do(func() error {
		st, err := os.Lstat(path)
		if err == nil && !st.Mode().IsRegular() {
			return &fs.PathError{Op: "create", Path: path, Err: errors.New("something that is not a regular file is there")}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
		o.File, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
		return err
	})
	if err != nil {
		return nil, u.explain(err)
	}
	return o, nil
}

// Commit puts the file at its path. It is on disk then.
func (o *Output) Commit() error {
	if err := o.Sync(); err != nil {
		return errors.Join(err, o.Discard())
	}
	err := o.user.Do(func() error { return os.Rename(o.Name(), o.path) })
	if err != nil {
		return errors.Join(fmt.Errorf("put the file in place: %w", o.user.explain(err)), o.Discard())
	}
	return o.Close()
}

// Discard leaves nothing.
func (o *Output) Discard() error {
	err := o.user.Do(func() error { return os.Remove(o.Name()) })
	return errors.Join(err, o.Close())
}

// IsDir says whether the user can see a directory there.
func (u User) IsDir(path string) bool {
	var dir bool
	_ = u.Do(func() error { // what cannot be seen is none
		st, err := os.Stat(path)
		dir = err == nil && st.IsDir()
		return err
	})
	return dir
}
