package changes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// compare is for what is of the same type on both sides.
func (w *walk) compare(path string, was, now *unix.Stat_t) error {
	differ := was.Mode != now.Mode
	var err error
	switch now.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if !differ {
			differ, err = w.contentDiffers(path, was, now)
		}
	case unix.S_IFLNK:
		differ, err = w.targetDiffers(path)
	}
	if w.vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if differ {
		if err := w.tell(change(Modified, path, now)); err != nil {
			return err
		}
	}
	if now.Mode&unix.S_IFMT == unix.S_IFDIR {
		return w.directory(path, true)
	}
	return nil
}

func (w *walk) targetDiffers(path string) (bool, error) {
	was, err := w.before.readlink(path)
	if err != nil {
		return false, err
	}
	now, err := w.upper.readlink(path)
	return was != now, err
}

func (w *walk) contentDiffers(path string, was, now *unix.Stat_t) (_ bool, err error) {
	if was.Size != now.Size {
		return true, nil
	}
	a, err := w.before.openFile(path)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := w.upper.openFile(path)
	if err != nil {
		return false, err
	}
	defer b.Close()
	return differ(w.ctx, a, b)
}

// differ compares what two files hold. It skips what is a hole in both: an agent
// makes one of a terabyte with one call.
func differ(ctx context.Context, a, b *os.File) (bool, error) {
	size, err := sameSize(a, b)
	if err != nil || size < 0 {
		return size < 0, err
	}
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < size; {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		if at = min(nextData(a, at, size), nextData(b, at, size)); at == size {
			break
		}
		n, errA := a.ReadAt(x, at)
		m, errB := b.ReadAt(y, at)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return true, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) {
				return false, err
			}
		}
		if n == 0 {
			break // both have become shorter
		}
		at += int64(n)
	}
	return false, nil
}

// sameSize is negative for files of two sizes.
func sameSize(a, b *os.File) (int64, error) {
	s, err := a.Stat()
	if err != nil {
		return 0, err
	}
	t, err := b.Stat()
	if err != nil {
		return 0, err
	}
	if s.Size() != t.Size() {
		return -1, nil
	}
	return s.Size(), nil
}

// nextData is where data begins again, and the size when there is none. Without
// the file system's help everything is data.
func nextData(f *os.File, at, size int64) int64 {
	next, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size
	case err != nil:
		return at
	default:
		return min(next, size)
	}
}
