package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// lock is a held flock. The kernel drops it when its holder dies, however.
type lock struct{ f *os.File }

// tryLock takes the lock at path and fails with errdefs.ErrUnavailable where
// another process holds it.
func tryLock(path string) (*lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s is held: %w", path, errdefs.ErrUnavailable)
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if sameFile(f, path) {
			return &lock{f}, nil
		}
		_ = f.Close() // its last holder removed it between open and flock: start over
	}
}

// waitLock is tryLock with patience.
func waitLock(path string, patience time.Duration) (*lock, error) {
	deadline := time.Now().Add(patience)
	for {
		l, err := tryLock(path)
		if !errdefs.IsUnavailable(err) || time.Now().After(deadline) {
			return l, err
		}
		time.Sleep(2 * time.Millisecond) // flock has no deadline of its own
	}
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
