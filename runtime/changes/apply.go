package changes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"carboy/runtime/workspace"
)

// Apply writes what Plan said. It goes on after a failure, so that the errors
// tell of all that is not written; but then it deletes nothing, as what took the
// place of that may be missing.
func (s Sides) Apply(ctx context.Context, t Target, todo []Change) error {
	upper := s.upper()
	defer upper.in.Forget()
	return as(t.User, t.Top, func(target reader) error {
		u := user{target}
		last, first := deletions(todo)
		var made []Change
		var errs []error
		for _, c := range todo {
			if c.Kind == Deleted || ctx.Err() != nil {
				continue
			}
			clear := func() error { return u.removeAll(first[c.Path]) }
			var err error
			if c.Type == "directory" {
				err = u.do(func() error { return u.openUp(c, clear, &made) })
			} else {
				err = u.write(ctx, upper, c, c.Path, clear)
			}
			errs = append(errs, failed("write", c, err))
		}
		err := errors.Join(append(errs, context.Cause(ctx))...)
		return u.do(func() error {
			if err == nil {
				err = u.removeAll(last)
			}
			return errors.Join(err, u.finish(made))
		})
	})
}

// openUp makes a directory that its user can write to, or makes one so. made
// takes those that do not have their modes yet.
func (u user) openUp(c Change, clear func() error, made *[]Change) error {
	if err := clear(); err != nil {
		return err
	}
	fresh, err := u.makeDirectory(c.Path)
	if err == nil && c.Kind == Modified {
		err = u.chmod(c.Path, c.Mode&0o777|0o700)
	}
	if err == nil && (fresh || c.Kind == Modified) {
		*made = append(*made, c)
	}
	return err
}

// finish gives directories their modes, what is in one before it: it may be the
// last that can be done there.
func (u user) finish(made []Change) error {
	var errs []error
	for _, c := range slices.Backward(made) {
		errs = append(errs, failed("set the mode of", c, u.chmod(c.Path, c.Mode&0o777)))
	}
	return errors.Join(errs...)
}

func failed(what string, c Change, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", what, c.Path, err)
}

// deletions are those that can wait, and by what another type of file replaces,
// those that it needs.
func deletions(todo []Change) (last []Change, first map[string][]Change) {
	deleted, replaced := map[string]bool{}, map[string]bool{}
	for _, c := range todo {
		switch { // a deletion comes before what takes its place
		case c.Kind == Deleted:
			deleted[c.Path] = true
		case deleted[c.Path]:
			replaced[c.Path] = true
		}
	}
	first = map[string][]Change{}
	for _, c := range todo {
		if c.Kind != Deleted {
			continue
		}
		if at := nearest(replaced, c.Path); at != "" {
			first[at] = append(first[at], c)
		} else {
			last = append(last, c)
		}
	}
	return last, first
}

// removeAll removes what is in a directory before it.
func (u user) removeAll(all []Change) error {
	var errs []error
	for _, c := range slices.Backward(all) {
		errs = append(errs, failed("delete", c, u.remove(c)))
	}
	return errors.Join(errs...)
}

// remove leaves a directory that holds what the agent did not see.
func (u user) remove(c Change) error {
	fd, base, err := u.in.Parent(c.Path)
	if err != nil {
		return err
	}
	if c.Type != "directory" {
		return unix.Unlinkat(fd, base, 0)
	}
	u.in.Forget() // it may be what is removed
	if fd, base, err = u.in.Parent(c.Path); err != nil {
		return err
	}
	if err := unix.Unlinkat(fd, base, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// write writes a file or a link, and calls clear once it has what it writes.
func (u user) write(ctx context.Context, from reader, c Change, to string, clear func() error) error {
	mode := c.Mode & 0o777
	put := func(make func(fd int, name string) error) error {
		return u.do(func() error {
			if err := clear(); err != nil {
				return err
			}
			return u.replace(to, make)
		})
	}
	switch c.Type {
	case "link":
		target, err := from.readlink(c.Path)
		if err != nil {
			return err
		}
		return put(func(fd int, name string) error { return unix.Symlinkat(target, fd, name) })
	default:
		content, err := from.openFile(c.Path)
		if err != nil {
			return err
		}
		defer content.Close()
		return put(func(fd int, name string) error {
			return create(ctx, fd, name, content, func(f *os.File) error { return f.Chmod(fs.FileMode(mode)) })
		})
	}
}

// makeDirectory leaves one alone that is there, and makes one for its user only.
func (u user) makeDirectory(name string) (fresh bool, err error) {
	fd, base, err := u.in.Parent(name)
	if err != nil {
		return false, err
	}
	err = unix.Mkdirat(fd, base, 0o700)
	if !errors.Is(err, unix.EEXIST) {
		return err == nil, err
	}
	st, err := u.in.Stat(name)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	return false, err
}

// chmod is for directories.
func (u user) chmod(name string, mode uint32) error {
	dir, err := u.in.Open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(dir.Chmod(fs.FileMode(mode)), dir.Close())
}

// replace makes a file beside another and puts it in its place, so that the
// other is whole until then.
func (u user) replace(to string, make func(fd int, name string) error) error {
	fd, base, err := u.in.Parent(to)
	if err != nil {
		return err
	}
	name := ".carboy-" + rand.Text()
	if err := make(fd, name); err != nil {
		_ = unix.Unlinkat(fd, name, 0) // it may not be there
		return err
	}
	if err := unix.Renameat(fd, name, fd, base); err != nil {
		return errors.Join(err, unix.Unlinkat(fd, name, 0))
	}
	return nil
}

func create(ctx context.Context, fd int, name string, from *os.File, finish func(*os.File) error) (err error) {
	n, err := unix.Openat(fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(n), name)
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := workspace.CopyData(ctx, f, from); err != nil {
		return err
	}
	return finish(f)
}
