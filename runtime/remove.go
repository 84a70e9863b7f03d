package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Remove ends a bottle and removes it. One that is supervised is only ended
// with force: its supervisor is asked to, and killed if it does not. Of one that
// is gone it removes the result.
func (h *Host) Remove(ctx context.Context, name string, force bool) error {
	r, err := h.Find(ctx, name)
	if errdefs.IsNotFound(err) {
		if found, dropErr := h.dropResults(ctx, name); found || dropErr != nil {
			return dropErr
		}
	}
	if err != nil {
		return err
	}
	own, err := h.awaitDead(ctx, r)
	if errors.Is(err, errHeld) {
		if !force {
			return fmt.Errorf("bottle %s is %s: end it with `carboy rm -f %s`: %w", name, h.state(r), name, errdefs.ErrFailedPrecondition)
		}
		if err := r.Owner.end(ctx); err != nil {
			return fmt.Errorf("end the supervisor of %s: %w", name, err)
		}
		own, err = h.awaitDead(ctx, r)
	}
	if err != nil || own == nil {
		return err
	}
	return h.reap(ctx, r, own, nil)
}

// end asks a supervisor to end its bottle and waits for its own end, with which
// it lets go of the lock.
func (o Owner) end(ctx context.Context) error {
	fd, err := unix.PidfdOpen(o.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if alive, err := o.alive(); err != nil || !alive { // after the pidfd: it cannot be another's now
		return err
	}
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		if gone(ctx, fd, StopTime+downTime/4) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end: %w", o.PID, context.Cause(ctx))
}

// gone waits for the process behind a pidfd.
func gone(ctx context.Context, fd int, patience time.Duration) bool {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		const slice = 100 // ms, so that ctx is looked at
		if n, err := unix.Poll(poll, slice); err == nil && n > 0 {
			return true
		}
	}
	return false
}
