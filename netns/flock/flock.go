// Package flock locks files between processes, by flock(2): a lock ends with
// the last descriptor of its file, also when that was inherited.
package flock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock waits for the lock of an open file, or returns the cause of the
// context's end.
func Lock(ctx context.Context, f *os.File) error {
	const least, most = time.Millisecond, 16 * time.Millisecond // many may wait
	for wait := least; ; wait = min(2*wait, most) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}
