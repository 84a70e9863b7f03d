package changes

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
)

// Export copies what is at a path of a tree to a name in the target, as the
// target's user. Links are copied, and not followed.
func Export(ctx context.Context, tree *os.File, path string, t Target, name string) error {
	from := reader{beneath.In(tree), directly}
	defer from.in.Forget()
	return as(t.User, t.Top, func(target reader) error { return user{target}.export(ctx, from, path, name) })
}

func (u user) export(ctx context.Context, from reader, path, to string) error {
	if err := errors.Join(context.Cause(ctx), tooDeep(path)); err != nil {
		return err
	}
	st, err := from.stat(path)
	if err != nil {
		return err
	}
	c := change(Added, path, &st)
	if c.Type == "special" {
		return fmt.Errorf("%q is no file, directory or link: %w", path, errdefs.ErrInvalidArgument)
	}
	if c.Type == "directory" {
		return u.exportDirectory(ctx, from, c, to)
	}
	if err := u.write(ctx, from, c, to, func() error { return nil }); err != nil {
		return fmt.Errorf("write %q: %w", to, err)
	}
	return nil
}

// exportDirectory sets its mode last, with which nothing may be written there;
// that of one that was there is its user's.
func (u user) exportDirectory(ctx context.Context, from reader, c Change, to string) error {
	var fresh bool
	err := u.do(func() (err error) {
		fresh, err = u.makeDirectory(to)
		return err
	})
	if err != nil {
		return fmt.Errorf("write %q: %w", to, err)
	}
	list, _, err := names(from, c.Path)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := u.export(ctx, from, join(c.Path, name), join(to, name)); err != nil {
			return err
		}
	}
	if !fresh {
		return nil
	}
	return u.do(func() error { return u.chmod(to, c.Mode&0o777) })
}

// Import puts a file into a tree that an agent may be writing to, in the name of
// the tree's owner.
func Import(ctx context.Context, from, tree *os.File, name string) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	var top unix.Stat_t
	if err := unix.Fstat(int(tree.Fd()), &top); err != nil {
		return err
	}
	u := user{reader{beneath.In(tree), directly}}
	defer u.in.Forget()
	return u.replace(name, func(fd int, temporary string) error {
		return create(ctx, fd, temporary, from, func(f *os.File) error {
			return errors.Join(f.Chown(int(top.Uid), int(top.Gid)), f.Chmod(info.Mode().Perm()))
		})
	})
}

// ImportDirectory makes a directory in a tree, and opens it.
func ImportDirectory(tree *os.File, name string) (*os.File, error) {
	in := beneath.In(tree)
	defer in.Forget()
	fd, base, err := in.Parent(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(fd, base, 0o700); err != nil {
		return nil, fmt.Errorf("make directory %q: %w", name, err)
	}
	return in.Open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// IsDirectory looks at a path of a tree.
func IsDirectory(tree *os.File, name string) bool {
	in := beneath.In(tree)
	defer in.Forget()
	st, err := in.Stat(name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}
