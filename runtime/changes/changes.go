// Package changes finds what was written over a tree: it reads the upper
// directory of an overlay (Documentation/filesystems/overlayfs.rst of Linux)
// beside the tree below it. Whoever wrote there is not trusted: no link is
// followed, and every name may hold any byte.
package changes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/invoker"
)

// Kinds of changes. What became another type of file is removed and added.
const (
	Added    = "A"
	Modified = "M"
	Deleted  = "D"
)

// Change is one path that differs.
type Change struct {
	Kind  string `json:"kind"`
	Path  string `json:"path"`
	Bytes []byte `json:"pathBytes,omitempty"` // of a path that is no UTF-8
	Type  string `json:"type"`                // file, directory, link or special
	Mode  uint32 `json:"mode"`                // permissions
	Size  int64  `json:"size"`
}

// Sides are the tree before, and what was written over it. The caller closes
// them.
type Sides struct {
	Before *os.File
	User   *invoker.User // who reads Before; nil is the caller
	Upper  *os.File      // nil: nothing was written
	Live   bool          // Upper is still written to: what is in it may vanish

	Release func() error // what Close calls last; may be nil
}

// Close closes both.
func (s Sides) Close() error {
	errs := []error{s.Before.Close()}
	if s.Upper != nil {
		errs = append(errs, s.Upper.Close())
	}
	if s.Release != nil {
		errs = append(errs, s.Release())
	}
	return errors.Join(errs...)
}

// Walk calls f for each change, directories before what is in them, until it
// returns an error.
func (s Sides) Walk(ctx context.Context, f func(Change) error) error {
	if s.Upper == nil {
		return nil
	}
	upper := reader{beneath.In(s.Upper), directly}
	defer upper.in.Forget()
	return s.reading(func(before reader) error {
		w := walk{ctx: ctx, before: before, upper: upper, live: s.Live, tell: f}
		return w.directory("", true)
	})
}

var errFound = errors.New("found")

// Any says whether there is any change.
func (s Sides) Any(ctx context.Context) (bool, error) {
	err := s.Walk(ctx, func(Change) error { return errFound })
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// List returns all changes.
func (s Sides) List(ctx context.Context) (all []Change, err error) {
	all = []Change{} // JSON readers want [] and not null
	err = s.Walk(ctx, func(c Change) error {
		all = append(all, c)
		return nil
	})
	return all, err
}

type walk struct {
	ctx    context.Context
	before reader
	upper  reader
	live   bool
	tell   func(Change) error
}

// vanished is for what an agent that is at work removed meanwhile. With none,
// what is missing is no change but a failure.
func (w *walk) vanished(err error) bool { return w.live && errors.Is(err, fs.ErrNotExist) }

func change(kind, path string, st *unix.Stat_t) Change {
	c := Change{Kind: kind, Path: path, Type: typeOf(st.Mode), Mode: st.Mode & 0o7777, Size: st.Size}
	if !utf8.ValidString(path) {
		c.Bytes = []byte(path)
	}
	return c
}

func typeOf(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "link"
	default:
		return "special"
	}
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// tooDeep bounds what a hostile tree costs, which grows with the square of a
// path.
func tooDeep(path string) error {
	const longest = 32 << 10
	if len(path) > longest {
		return fmt.Errorf("a path in the workspace has more than %d bytes: %.60q...: %w", longest, path, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// names lists a directory, and says whether it hides what is below it.
func names(d reader, path string) (list []string, opaque bool, err error) {
	f, err := d.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if list, err = f.Readdirnames(-1); err != nil {
		return nil, false, err
	}
	slices.Sort(list)
	value := make([]byte, 8)
	n, err := unix.Fgetxattr(int(f.Fd()), "trusted.overlay.opaque", value)
	return list, err == nil && string(value[:n]) == "y", nil
}

// directory goes through one directory of the upper side. known says that it
// was a directory before.
func (w *walk) directory(path string, known bool) error {
	if err := tooDeep(path); err != nil {
		return err
	}
	list, opaque, err := names(w.upper, path)
	if w.vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if known && opaque {
		if err := w.hidden(path, list); err != nil {
			return err
		}
	}
	for _, name := range list {
		if err := w.entry(join(path, name), known); err != nil {
			return err
		}
	}
	return nil
}

// hidden tells of what an opaque directory does not hold again.
func (w *walk) hidden(path string, kept []string) error {
	list, _, err := names(w.before, path)
	if err != nil {
		return err
	}
	for _, name := range list {
		if _, found := slices.BinarySearch(kept, name); !found {
			if err := w.deleted(join(path, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleted tells of everything that was at a path.
func (w *walk) deleted(path string) error {
	st, err := w.before.stat(path)
	if err != nil {
		return err
	}
	if err := w.tell(change(Deleted, path, &st)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	list, _, err := names(w.before, path)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := w.deleted(join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(path string, known bool) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	now, err := w.upper.stat(path)
	if w.vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	was, existed := unix.Stat_t{}, false
	if known {
		was, err = w.before.stat(path)
		if existed = err == nil; !existed && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	switch {
	case now.Mode&unix.S_IFMT == unix.S_IFCHR && now.Rdev == 0: // a whiteout
		if existed {
			return w.deleted(path)
		}
		return nil
	case existed && was.Mode&unix.S_IFMT == now.Mode&unix.S_IFMT:
		return w.compare(path, &was, &now)
	case existed:
		if err := w.deleted(path); err != nil {
			return err
		}
	}
	if err := w.tell(change(Added, path, &now)); err != nil {
		return err
	}
	if now.Mode&unix.S_IFMT == unix.S_IFDIR {
		return w.directory(path, false)
	}
	return nil
}
