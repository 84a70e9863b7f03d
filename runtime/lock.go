package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// lock is a held lock of an open file description (fcntl(2), F_OFD_SETLK): the
// kernel drops it when its holder dies, however, and others can look at it
// without taking it.
type lock struct{ f *os.File }

// exclusive is the whole file, for one holder.
func exclusive() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }

// errHeld is a lock that another process has. It is told from a containerd that
// is not there, which is of the same class.
var errHeld = fmt.Errorf("another process is at it: %w", errdefs.ErrUnavailable)

// tryLock takes the lock at path and fails with errHeld where another process
// has it.
func tryLock(path string) (*lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, exclusive()); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return nil, fmt.Errorf("lock %s: %w", path, errHeld)
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if sameFile(f, path) {
			return &lock{f}, nil
		}
		_ = f.Close() // its last holder removed it between open and lock: start over
	}
}

// waitLock is tryLock with patience.
func waitLock(ctx context.Context, path string, patience time.Duration) (*lock, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	const least, most = 2 * time.Millisecond, 30 * time.Millisecond // many may wait
	for wait := least; ; wait = min(2*wait, most) {
		l, err := tryLock(path)
		if !errors.Is(err, errHeld) {
			return l, err
		}
		select {
		case <-ctx.Done(): // waiting for a lock has no deadline of its own
			return nil, err
		case <-time.After(wait):
		}
	}
}

// held looks whether somebody holds a lock, without taking it.
func held(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	l := exclusive()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, l) != nil || l.Type != unix.F_UNLCK
}

func sameFile(f *os.File, path string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(held, now)
}

// remove deletes the file and then lets go; whoever opened it meanwhile sees
// that it is not the file at the path any more.
func (l *lock) remove() error {
	err := os.Remove(l.f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.f.Close())
}

func (l *lock) release() error { return l.f.Close() }

// postponement is how long starts leave a bottle alone that could not be
// removed.
const postponement = time.Minute

// postpone lets go of a lock whose bottle could not be removed. The file's time
// says until when nobody is to wait for that again.
func (l *lock) postpone() error {
	until := time.Now().Add(postponement)
	return errors.Join(os.Chtimes(l.f.Name(), until, until), l.release())
}

func postponed(path string) bool {
	st, err := os.Lstat(path)
	if err != nil {
		return false
	}
	left := time.Until(st.ModTime())
	return left > 0 && left <= postponement // more is from before the clock was set back
}
