package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
)

// tries is how often a file that changes while it is read is read again.
const tries = 5

// copyOne copies a file or a link.
func (c *copier) copyOne(ctx context.Context, to *beneath.Dir, o opened) error {
	var err error
	if o.entry.kind() == unix.S_IFLNK {
		err = c.copyLink(to, o)
	} else {
		err = c.copyFile(ctx, to, o)
	}
	if err != nil {
		return fmt.Errorf("copy %q to the workspace: %w", o.path, err)
	}
	return nil
}

func (c *copier) copyLink(to *beneath.Dir, o opened) error {
	fd, base, err := to.Parent(o.path)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(o.target, fd, base); err != nil {
		return err
	}
	if err := unix.Fchownat(fd, base, c.owner.UID, c.owner.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	times := []unix.Timespec{unix.NsecToTimespec(o.entry.Mtime), unix.NsecToTimespec(o.entry.Mtime)}
	return unix.UtimesNanoAt(fd, base, times, unix.AT_SYMLINK_NOFOLLOW)
}

func (c *copier) copyFile(ctx context.Context, to *beneath.Dir, o opened) (err error) {
	out, err := to.Open(o.path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	st, err := c.stable(ctx, out, o.file)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG { // a FIFO or a device in its place
		return fmt.Errorf("it has become another kind of file: %w", errdefs.ErrUnavailable)
	}
	*o.entry = newEntry(o.entry.Name, &st)
	return c.finish(out, o.file, o.entry)
}

// stable copies the content until nothing happened to it meanwhile.
func (c *copier) stable(ctx context.Context, out, in *os.File) (before unix.Stat_t, err error) {
	for range tries {
		if err := unix.Fstat(int(in.Fd()), &before); err != nil || before.Mode&unix.S_IFMT != unix.S_IFREG {
			return before, err
		}
		if err := c.content(ctx, out, in, &before); err != nil {
			return before, err
		}
		var after unix.Stat_t
		if err := unix.Fstat(int(in.Fd()), &after); err != nil {
			return before, err
		}
		if newEntry("", &before) == newEntry("", &after) {
			return before, nil
		}
		if err := out.Truncate(0); err != nil {
			return before, err
		}
	}
	return before, fmt.Errorf("it changes all the time: try again, or name it in .carboyignore: %w", errdefs.ErrUnavailable)
}

// small is what is read at once, to where it stays on one side of the kernel.
const small = 64 << 10

func (c *copier) content(ctx context.Context, out, in *os.File, st *unix.Stat_t) error {
	const block = 512
	size := st.Size
	switch {
	case size == 0:
		return nil
	case c.clone.Load():
		if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
			return nil
		}
		c.clone.Store(false) // not here, or not between these
	}
	if size <= small && st.Blocks*block >= size {
		return copySmall(out, in, size)
	}
	if err := out.Truncate(size); err != nil {
		return err
	}
	return eachPart(in, size, func(at, end int64) error { return copyPart(ctx, out, in, at, end) })
}

// CopyData copies what a file holds to an empty one. Its holes stay: an agent
// makes one of a terabyte with one call.
func CopyData(ctx context.Context, out, in *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	return eachPart(in, info.Size(), func(at, end int64) error { return copyPart(ctx, out, in, at, end) })
}

func copySmall(out, in *os.File, size int64) error {
	b := make([]byte, size)
	n, err := in.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) { // it has become shorter, which is seen
		return err
	}
	_, err = out.WriteAt(b[:n], 0)
	return err
}

// eachPart finds the parts of a file that hold data.
func eachPart(in *os.File, size int64, f func(at, end int64) error) error {
	for at := int64(0); at < size; {
		begin, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole to the end
		}
		end := size
		if err == nil {
			end, err = unix.Seek(int(in.Fd()), begin, unix.SEEK_HOLE)
		}
		if err != nil {
			return err
		}
		if err := f(begin, min(end, size)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// copyPart leaves the copying to the kernel where it can.
func copyPart(ctx context.Context, out, in *os.File, at, end int64) error {
	const slice = 64 << 20 // so that ctx is looked at
	for at < end {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		from, to := at, at
		n, err := unix.CopyFileRange(int(in.Fd()), &from, int(out.Fd()), &to, int(min(end-at, slice)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			_, err := io.Copy(io.NewOffsetWriter(out, at), io.NewSectionReader(in, at, end-at))
			return err
		case err != nil:
			return err
		case n == 0:
			return nil // it has become shorter, which is seen
		}
		at += int64(n)
	}
	return nil
}

// permissions drops what gives whoever runs a file the rights of its owner: the
// owner is another one now. On directories the bits mean other things.
func permissions(mode uint32) uint32 {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return mode & 0o7777
	}
	return mode & 0o777
}

func (c *copier) finishDirectory(_ context.Context, to *beneath.Dir, o opened) error {
	out, err := to.Open(o.path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil {
		err = errors.Join(c.finish(out, o.file, o.entry), out.Close())
	}
	if err != nil {
		return fmt.Errorf("directory %q of the workspace: %w", o.path, err)
	}
	return nil
}

// finish gives a copy the looks of the original, and its new owner.
func (c *copier) finish(out, in *os.File, e *Entry) error {
	fd := int(out.Fd())
	if in == nil {
		return unix.Fchown(fd, c.owner.UID, c.owner.GID)
	}
	if err := copyAttributes(out, in); err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	if err := unix.Fchown(fd, c.owner.UID, c.owner.GID); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, permissions(e.Mode)); err != nil {
		return err
	}
	return setTimes(fd, e.Mtime)
}

func setTimes(fd int, mtime int64) error {
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{unix.NsecToTimespec(mtime), unix.NsecToTimespec(mtime)}, unix.AT_EMPTY_PATH)
}

// copyAttributes copies those that users give files. What else there is grants
// rights (security.capability) or belongs to the host's policy.
func copyAttributes(out, in *os.File) error {
	names := make([]byte, 1024)
	n, err := unix.Flistxattr(int(in.Fd()), names)
	if errors.Is(err, unix.ERANGE) {
		names = make([]byte, 64<<10) // the kernel's limit
		n, err = unix.Flistxattr(int(in.Fd()), names)
	}
	if n == 0 || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range bytes.SplitSeq(names[:n], []byte{0}) {
		if s := string(name); strings.HasPrefix(s, "user.") && !strings.HasPrefix(s, "user.overlay.") {
			if err := copyAttribute(out, in, s); err != nil {
				return fmt.Errorf("%q: %w", s, err)
			}
		}
	}
	return nil
}

func copyAttribute(out, in *os.File, name string) error {
	value := make([]byte, 64<<10) // the kernel's limit
	n, err := unix.Fgetxattr(int(in.Fd()), name, value)
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Fsetxattr(int(out.Fd()), name, value[:n], 0)
}
