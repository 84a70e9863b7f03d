package workspace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/patternmatcher"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/invoker"
)

// Source is a directory as its user sees it.
type Source struct {
	Path string
	Top  *os.File // opened as the user
	User invoker.User
}

// scanners is how many threads look at directories.
const scanners = 3

// mostNamed bounds how many files a message names.
const mostNamed = 10

// pending is a directory that is to be read.
type pending struct {
	path    string
	matched patternmatcher.MatchInfo
	out     bool // left out itself, but what is in it may not be
}

// scan reads a tree by several threads.
type scan struct {
	source  Source
	ignored *ignored

	mu      sync.Mutex
	changed *sync.Cond
	queue   []pending
	busy    int
	failed  error
	refused []string
	found   []Directory
	out     map[string]bool // directories that only lead to what is not left out
}

// Scan looks at every file of the source that is not left out. It fails with
// errdefs.ErrInvalidArgument for what cannot be copied, and names it.
func (s Source) Scan(ctx context.Context) (Index, error) {
	var x Index
	c := &scan{source: s, queue: []pending{{}}, out: map[string]bool{}}
	c.changed = sync.NewCond(&c.mu)
	err := s.User.Do(func() (err error) {
		var st unix.Stat_t
		if err := unix.Fstat(int(s.Top.Fd()), &st); err != nil {
			return err
		}
		x.Root = newEntry("", &st)
		c.ignored, err = readIgnored(s.Top)
		return err
	})
	if err != nil {
		return x, err
	}
	var g errgroup.Group
	for range scanners {
		g.Go(func() error { return s.User.Do(func() error { return c.work(ctx) }) })
	}
	if err := errors.Join(g.Wait(), c.refusal()); err != nil {
		return x, err
	}
	slices.SortFunc(c.found, func(a, b Directory) int { return strings.Compare(a.Path, b.Path) })
	x.Directories = prune(c.found, c.out)
	return x, nil
}

func (c *scan) refusal() error {
	if len(c.refused) == 0 {
		return nil
	}
	slices.Sort(c.refused)
	return fmt.Errorf("cannot be copied: %s: remove them, or name them in .carboyignore: %w", list(c.refused), errdefs.ErrInvalidArgument)
}

func list(names []string) string {
	if more := len(names) - mostNamed; more > 0 {
		return strings.Join(names[:mostNamed], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}

// work reads directories until none is left.
func (c *scan) work(ctx context.Context) error {
	in := beneath.In(c.source.Top)
	defer in.Forget()
	for {
		p, ok := c.next()
		if !ok {
			return nil
		}
		d, below, err := c.read(in, p)
		if err == nil {
			err = context.Cause(ctx)
		}
		c.done(p, d, below, err)
		if err != nil {
			return err
		}
	}
}

func (c *scan) next() (pending, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && c.busy > 0 && c.failed == nil {
		c.changed.Wait()
	}
	if len(c.queue) == 0 || c.failed != nil {
		return pending{}, false
	}
	p := c.queue[len(c.queue)-1]
	c.queue = c.queue[:len(c.queue)-1]
	c.busy++
	return p, true
}

func (c *scan) done(p pending, d Directory, below []pending, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	if err != nil {
		c.failed = err
	}
	c.found = append(c.found, d)
	if p.out {
		c.out[p.path] = true
	}
	c.queue = append(c.queue, below...)
	c.changed.Broadcast()
}

// read lists one directory. One that has just gone is empty.
func (c *scan) read(in *beneath.Dir, p pending) (d Directory, below []pending, err error) {
	d.Path = p.path
	f, err := in.Open(p.path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if p.path != "" && vanished(err) {
		return d, nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		c.refuse(p.path, "cannot be read by "+c.source.User.Name)
		return d, nil, nil
	}
	if err != nil {
		return d, nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return d, nil, err
	}
	d.Entries = make([]Entry, 0, len(names))
	for _, name := range names {
		if below, err = c.look(f, &d, p, name, below); err != nil {
			return d, nil, err
		}
	}
	slices.SortFunc(d.Entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return d, below, nil
}

// vanished says that there is nothing more of the kind that was seen.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// look adds one file of a directory.
func (c *scan) look(f *os.File, d *Directory, p pending, name string, below []pending) ([]pending, error) {
	whole := join(p.path, name)
	out, matched, err := c.ignored.matches(whole, p.matched)
	if err != nil {
		return below, err
	}
	if out && !c.ignored.enter() {
		return below, nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if vanished(err) {
			return below, nil
		}
		return below, fmt.Errorf("stat %q: %w", whole, err)
	}
	e := newEntry(name, &st)
	if e.isDir() {
		below = append(below, pending{path: whole, matched: matched, out: out})
	} else if out {
		return below, nil
	}
	if what := special(e.kind()); what != "" {
		c.refuse(whole, what)
		return below, nil
	}
	d.Entries = append(d.Entries, e)
	return below, nil
}

// special is the word for what cannot be copied.
func special(kind uint32) string {
	switch kind {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
		return ""
	case unix.S_IFSOCK:
		return "is a socket"
	case unix.S_IFIFO:
		return "is a FIFO"
	default:
		return "is a device"
	}
}

func (c *scan) refuse(name, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = append(c.refused, fmt.Sprintf("%q %s", name, why))
}
