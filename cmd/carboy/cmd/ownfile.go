package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/containerd/errdefs"

	"carboy/runtime/invoker"
)

// ownFile is a file of a user, that he has read and wants to change.
type ownFile struct {
	who  invoker.User
	path string
	old  []byte
}

// writable tells before the work that it could not be saved.
func (f ownFile) writable() error {
	out, err := f.create()
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s is not yours to write, as carboy edits with your own rights: use `sudoedit %s`, then `carboy validate`: %w", quotePath(f.path), quotePath(f.path), errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	return out.Discard()
}

// replace keeps owner and mode, and refuses to undo what somebody else wrote
// meanwhile.
func (f ownFile) replace(text []byte) error {
	if now, err := f.who.ReadFile(f.path, 1<<20); err != nil || !bytes.Equal(now, f.old) {
		return errors.Join(fmt.Errorf("%s has changed meanwhile", quotePath(f.path)), err)
	}
	out, err := f.create()
	if err != nil {
		return err
	}
	if _, err = out.Write(text); err != nil {
		return errors.Join(err, out.Discard())
	}
	return out.Commit()
}

// create makes an empty file that is to be in the old one's place.
func (f ownFile) create() (*invoker.Output, error) {
	st, err := f.stat()
	if err != nil {
		return nil, err
	}
	out, err := f.who.Create(f.path)
	if err != nil {
		return nil, err
	}
	if err = errors.Join(f.giveTo(out.File, st), out.Chmod(st.Mode().Perm())); err != nil {
		return nil, errors.Join(err, out.Discard())
	}
	return out, nil
}

func (f ownFile) stat() (fs.FileInfo, error) {
	old, err := f.who.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer old.Close()
	return old.Stat()
}

// giveTo has the owners of another file, where the user may give his away.
func (f ownFile) giveTo(out *os.File, old fs.FileInfo) error {
	want := old.Sys().(*syscall.Stat_t)
	st, err := out.Stat()
	if err != nil {
		return err
	}
	if is := st.Sys().(*syscall.Stat_t); is.Uid == want.Uid && is.Gid == want.Gid {
		return nil
	}
	return f.who.Do(func() error { return out.Chown(int(want.Uid), int(want.Gid)) })
}
