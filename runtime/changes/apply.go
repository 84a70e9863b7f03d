package changes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/invoker"
	"carboy/runtime/workspace"
)

// Target is a directory that changes are written to, as its user.
type Target struct {
	Top   *os.File
	User  invoker.User
	Since time.Time // what changed later is another's change; zero: what is not as before
}

// Application is what would be written.
type Application struct {
	Todo      []Change
	Conflicts []Change // somebody else changed these as well
	Withheld  []Change // what would make programs of the host run something, or is no file
}

// user is the target, read and written with its user's rights.
type user struct{ reader }

// Plan sorts changes by what is to be done about them, and writes nothing.
func (s Sides) Plan(ctx context.Context, t Target) (a Application, err error) {
	upper := s.upper()
	defer upper.in.Forget()
	return a, s.onBoth(t, func(u user, before reader) error {
		removed := map[string]bool{}
		return s.Walk(ctx, func(c Change) error {
			switch {
			case withheld(c):
				a.Withheld = append(a.Withheld, c)
				return nil
			case c.Kind == Added && within(removed, c.Path): // another type of file takes its place
				a.Todo = append(a.Todo, c)
				return nil
			}
			done, conflict, err := s.look(ctx, t, u, before, upper, c)
			switch {
			case err != nil:
				return err
			case conflict:
				a.Conflicts = append(a.Conflicts, c)
			case !done:
				removed[c.Path] = c.Kind == Deleted
				a.Todo = append(a.Todo, c)
			}
			return nil
		})
	})
}

// within says whether a path, or what it is in, is one of some.
func within(some map[string]bool, path string) bool { return nearest(some, path) != "" }

// nearest is that one, or empty.
func nearest(some map[string]bool, path string) string {
	for ; path != "" && path != "."; path = filepath.Dir(path) {
		if some[path] {
			return path
		}
	}
	return ""
}

func (s Sides) upper() reader {
	if s.Upper == nil {
		return reader{beneath.In(s.Before), directly} // Walk finds nothing to open there
	}
	return reader{beneath.In(s.Upper), directly}
}

func (s Sides) onBoth(t Target, f func(u user, before reader) error) error {
	return as(t.User, t.Top, func(target reader) error {
		return s.reading(func(before reader) error { return f(user{target}, before) })
	})
}

// look compares the target with both sides.
func (s Sides) look(ctx context.Context, t Target, u user, before, upper reader, c Change) (done, conflict bool, err error) {
	st, err := u.stat(c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.Kind == Deleted, c.Kind == Modified, nil
	case vanished(err):
		return false, true, nil // somewhere on the way is a link now
	case err != nil:
		return false, false, err
	}
	if c.Type == "directory" && c.Kind != Deleted {
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		return c.Kind == Added && isDir, !isDir, nil
	}
	if c.Type == "directory" && st.Mode&unix.S_IFMT == unix.S_IFDIR { // what is in it counts
		return false, false, nil
	}
	if done, err = u.equal(ctx, upper, c.Path, &st); err != nil || done {
		return done, false, err
	}
	if c.Kind == Added {
		return false, true, nil
	}
	same, err := u.equal(ctx, before, c.Path, &st)
	late := !t.Since.IsZero() && time.Unix(st.Ctim.Unix()).After(t.Since)
	return false, !same || late, err
}

// vanished says that there is nothing, or another type of file on the way.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// equal says whether a file of the target is that of one side.
func (u user) equal(ctx context.Context, side reader, path string, target *unix.Stat_t) (bool, error) {
	st, err := side.stat(path)
	if vanished(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	const permissions = 0o777
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && target.Mode&unix.S_IFMT == unix.S_IFDIR {
		return true, nil
	}
	if st.Mode&(unix.S_IFMT|permissions) != target.Mode&(unix.S_IFMT|permissions) {
		return false, nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return u.sameLink(side, path)
	case unix.S_IFREG:
		return u.sameFile(ctx, side, path)
	default:
		return false, nil
	}
}

func (u user) sameLink(side reader, path string) (bool, error) {
	want, err := side.readlink(path)
	if err != nil {
		return false, err
	}
	have, err := u.readlink(path)
	return have == want, err
}

func (u user) sameFile(ctx context.Context, side reader, path string) (bool, error) {
	a, err := side.openFile(path)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := u.openFile(path)
	if err != nil {
		return false, err
	}
	defer b.Close()
	different, err := differ(ctx, a, b)
	return !different, err
}

// Apply writes what Plan said. It goes on after a failure, so that the errors
// tell of all that is not written; but then it deletes nothing, as what took the
// place of that may be missing.
func (s Sides) Apply(ctx context.Context, t Target, todo []Change) error {
	upper := s.upper()
	defer upper.in.Forget()
	return as(t.User, t.Top, func(target reader) error {
		u := user{target}
		last, first := deletions(todo)
		var errs []error
		for _, c := range todo {
			if c.Kind != Deleted && ctx.Err() == nil {
				err := u.write(ctx, upper, c, c.Path, func() error { return u.removeAll(first[c.Path]) })
				errs = append(errs, failed("write", c, err))
			}
		}
		if err := errors.Join(append(errs, context.Cause(ctx))...); err != nil {
			return err
		}
		return u.do(func() error { return u.removeAll(last) })
	})
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

// write calls clear once it has what it writes.
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
	case "directory":
		return u.do(func() error {
			if err := clear(); err != nil {
				return err
			}
			return u.makeDirectory(to, mode)
		})
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

func (u user) makeDirectory(name string, mode uint32) error {
	fd, base, err := u.in.Parent(name)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(fd, base, mode); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
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
