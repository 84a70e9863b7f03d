package changes

import (
	"bytes"
	"errors"
	"io"
	"io/fs"

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
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed by a living bottle meanwhile
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
	return differ(a, b)
}

func differ(a, b io.Reader) (bool, error) {
	const size = 64 << 10
	x, y := make([]byte, size), make([]byte, size)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return true, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if n < size {
			return false, nil
		}
	}
}
