package changes

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/invoker"
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
		err := s.Walk(ctx, func(c Change) error {
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
		if err != nil {
			return err
		}
		return a.withhold(u)
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
