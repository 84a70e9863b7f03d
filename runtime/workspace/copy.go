package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
)

// Owner has every file of a copy.
type Owner struct{ UID, GID int }

// copiers is how many threads open files, and how many write them.
const copiers = 2

// Update makes a copy of old one of now, and says whether there was anything to
// do. What changed or vanished since the scan is set right in now. The source
// is read as its user, and the copy written as the caller.
func (s Source) Update(ctx context.Context, to *os.File, owner Owner, old, now Index) (bool, error) {
	d := compare(old, now)
	if d.empty() {
		return false, nil
	}
	c := &copier{source: s, to: to, owner: owner}
	c.clone.Store(true)
	if err := c.clear(d); err != nil {
		return true, err
	}
	if err := c.copyAll(ctx, d.made); err != nil {
		return true, err
	}
	dirs := d.directories(&now)
	for i, j := 0, len(dirs)-1; i < j; i, j = i+1, j-1 { // what is in a directory comes before it
		dirs[i], dirs[j] = dirs[j], dirs[i]
	}
	return true, c.each(ctx, dirs, c.finishDirectory)
}

type copier struct {
	source Source
	to     *os.File
	owner  Owner
	clone  atomic.Bool // the file system may share blocks between files

	mu      sync.Mutex
	refused []string
}

// clear removes what is to go, and makes directories.
func (c *copier) clear(d *delta) error {
	to := beneath.In(c.to)
	defer to.Forget()
	for _, path := range d.gone {
		if err := to.Remove(path); err != nil {
			return err
		}
	}
	for _, it := range d.made {
		if it.old {
			if err := to.Remove(it.path); err != nil {
				return err
			}
		}
		if it.entry.isDir() {
			fd, base, err := to.Parent(it.path)
			if err == nil {
				err = unix.Mkdirat(fd, base, 0o700)
			}
			if err != nil {
				return fmt.Errorf("make directory %q in the workspace: %w", it.path, err)
			}
		}
	}
	return nil
}

// copyAll copies files and links. Of several names of one file the first is
// copied; where that vanished meanwhile, the next.
func (c *copier) copyAll(ctx context.Context, made []*item) error {
	for len(made) > 0 {
		first := map[inode]*item{}
		var files, names []*item
		for _, it := range made {
			switch e := it.entry; {
			case e.isDir():
			case e.linked() && first[e.inode()] != nil:
				names = append(names, it)
			default:
				if e.linked() {
					first[e.inode()] = it
				}
				files = append(files, it)
			}
		}
		if err := c.each(ctx, files, c.copyOne); err != nil {
			return err
		}
		var err error
		if made, err = c.link(names, first); err != nil {
			return err
		}
	}
	return nil
}

// link gives files their further names and returns those that it could not.
func (c *copier) link(names []*item, first map[inode]*item) (left []*item, err error) {
	from, to := beneath.In(c.to), beneath.In(c.to)
	defer from.Forget()
	defer to.Forget()
	for _, it := range names {
		original := first[it.entry.inode()]
		if original.entry.Mode == 0 {
			left = append(left, it)
			continue
		}
		old, oldBase, err := from.Parent(original.path)
		if err != nil {
			return nil, err
		}
		fd, base, err := to.Parent(it.path)
		if err != nil {
			return nil, err
		}
		if err := unix.Linkat(old, oldBase, fd, base, 0); err != nil {
			return nil, fmt.Errorf("link %q in the workspace: %w", it.path, err)
		}
		name := it.entry.Name
		*it.entry = *original.entry
		it.entry.Name = name
	}
	return left, nil
}

// opened is an item with what its user could open of it.
type opened struct {
	*item
	file   *os.File // closed by who takes it
	target string   // of a link
}

// each opens every item as the user, and gives it to f as the caller.
func (c *copier) each(ctx context.Context, items []*item, f func(context.Context, *beneath.Dir, opened) error) error {
	g, ctx := errgroup.WithContext(ctx)
	share := (len(items) + copiers - 1) / copiers
	for n := range copiers {
		// Neighbours in one share, so that both sides seldom change directories.
		mine := items[min(n*share, len(items)):min((n+1)*share, len(items))]
		if len(mine) == 0 {
			continue
		}
		ready := make(chan []opened, 2)
		g.Go(func() error {
			defer close(ready)
			return c.source.User.Do(func() error { return c.openAll(ctx, mine, ready) })
		})
		g.Go(func() error { return c.writeAll(ctx, ready, f) })
	}
	err := g.Wait()
	if refused := c.refusal(); refused != nil {
		return refused
	}
	return err
}

// batch is how many files are handed over at once: threads that wake each other
// for every file cost more than the files.
const batch = 16

func (c *copier) openAll(ctx context.Context, items []*item, ready chan<- []opened) error {
	in := beneath.In(c.source.Top)
	defer in.Forget()
	for len(items) > 0 {
		var all []opened
		var err error
		for len(items) > 0 && len(all) < batch && err == nil {
			o := opened{item: items[0]}
			items = items[1:]
			if err = c.open(in, &o); err == nil {
				all = append(all, o)
			}
		}
		select {
		case ready <- all:
		case <-ctx.Done():
			closeAll(all)
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func closeAll(all []opened) {
	for _, o := range all {
		if o.file != nil {
			_ = o.file.Close()
		}
	}
}

// open opens one item. It leaves Mode zero for one that has vanished, or become
// something else, which the next copy will take.
func (c *copier) open(in *beneath.Dir, o *opened) (err error) {
	kind := o.entry.kind()
	switch kind {
	case unix.S_IFLNK:
		o.target, err = in.Readlink(o.path)
	case unix.S_IFDIR:
		o.file, err = in.Open(o.path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	default:
		o.file, err = in.Open(o.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	}
	switch {
	case kind == unix.S_IFDIR && vanished(err):
		o.file = nil
		return nil // it was made, and the next copy removes it
	case vanished(err), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENXIO):
		o.entry.Mode = 0
		return nil
	case errors.Is(err, fs.ErrPermission):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refused = append(c.refused, fmt.Sprintf("%q cannot be read by %s", o.path, c.source.User.Name))
		if len(c.refused) > mostNamed {
			return err
		}
		o.entry.Mode = 0
		return nil
	}
	return err
}

func (c *copier) refusal() error {
	if len(c.refused) == 0 {
		return nil
	}
	return fmt.Errorf("cannot be copied: %s: change their modes, or name them in .carboyignore: %w", list(c.refused), errdefs.ErrInvalidArgument)
}

// writeAll goes on to close files after a failure.
func (c *copier) writeAll(ctx context.Context, ready <-chan []opened, f func(context.Context, *beneath.Dir, opened) error) (err error) {
	to := beneath.In(c.to)
	defer to.Forget()
	for all := range ready {
		for _, o := range all {
			if err == nil {
				err = context.Cause(ctx)
			}
			if err == nil && o.entry.Mode != 0 {
				err = f(ctx, to, o)
			}
		}
		closeAll(all)
		if err != nil {
			go func() { // until the opener sees that it is over
				for all := range ready {
					closeAll(all)
				}
			}()
			return err
		}
	}
	return nil
}
