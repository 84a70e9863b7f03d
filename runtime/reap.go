package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/netns"
)

// reap removes everything a record speaks of and its lease last. It is used by
// a failed bring-up, the normal end, rm and gc, takes each step even when one
// fails, and can be run again. own is the bottle's lock, which it gives up; let
// go drops what this process itself holds of the bottle.
func (h *Host) reap(ctx context.Context, r Record, own *lock, letGo func() error) error {
	defer h.Trace.step("tear-down")()
	var errs []error
	step := func(what string, f func() error) {
		defer h.Trace.step("remove " + what)()
		if err := f(); err != nil {
			errs = append(errs, fmt.Errorf("remove %s of bottle %s: %w", what, r.Name, err))
		}
	}
	egress := h.egressPath(ctx, r)
	step("containers", func() error { return h.removeCells(ctx, r) })
	step("namespaces", letGo)
	step("network", func() error { return netns.Detach(ctx, r.Network, egress) })
	step("shims", func() error { return h.endStrayShims(ctx, r) })
	step("cgroups", func() error { return errors.Join(removeCgroup(r.agentID()), removeCgroup(r.proxyID())) })
	step("run directory", func() error { return os.RemoveAll(r.dir()) })
	if len(errs) == 0 {
		step("lease", func() error { return h.deleteLease(ctx, r) })
	}
	if len(errs) > 0 {
		return errors.Join(append(errs, fmt.Errorf("bottle %s is not removed completely, its record stays: run `carboy gc` again", r.Name), own.release())...)
	}
	return own.remove()
}

// egressPath is the egress namespace while something still lives in it; only
// an operator's own network needs it.
func (h *Host) egressPath(ctx context.Context, r Record) string {
	container, err := h.Client.LoadContainer(ctx, r.proxyID())
	if err != nil {
		return ""
	}
	task, err := container.Task(ctx, nil)
	if err != nil || task.Pid() == 0 {
		return ""
	}
	return fmt.Sprintf("/proc/%d/ns/net", task.Pid())
}

// removeCells removes both containers at once: most of it is waiting.
func (h *Host) removeCells(ctx context.Context, r Record) error {
	var agent, proxy error
	var both sync.WaitGroup
	both.Go(func() { agent = h.removeCell(ctx, r.agentID()) })
	both.Go(func() { proxy = h.removeCell(ctx, r.proxyID()) })
	both.Wait()
	return errors.Join(agent, proxy)
}

func (h *Host) deleteLease(ctx context.Context, r Record) error {
	err := h.Client.LeasesService().Delete(ctx, leases.Lease{ID: r.leaseID()}, leases.SynchronousDelete)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// reapIfDead reaps a bottle that nobody supervises. It fails with
// errdefs.ErrUnavailable for a live one and with errdefs.ErrFailedPrecondition
// for one that was kept on purpose.
func (h *Host) reapIfDead(ctx context.Context, r Record) error {
	own, err := h.takeDead(ctx, r)
	if err != nil || own == nil {
		return err
	}
	if r.kept() {
		return errors.Join(fmt.Errorf("bottle %s was kept for inspection: %w", r.Name, errdefs.ErrFailedPrecondition), own.release())
	}
	return h.reap(ctx, r, own, nothing)
}

func nothing() error { return nil }

// takeDead locks a bottle that has no supervisor. Between the listing and the
// lock it may have been reaped, and its name taken by a new one: then there is
// nothing to do and the lock is nil.
func (h *Host) takeDead(ctx context.Context, r Record) (*lock, error) {
	own, err := tryLock(r.lockPath())
	if err != nil {
		return nil, err
	}
	now, err := h.Find(ctx, r.Name)
	if errdefs.IsNotFound(err) || err == nil && now.Instance != r.Instance {
		return nil, own.remove()
	}
	if err != nil {
		return nil, errors.Join(err, own.release())
	}
	alive, err := r.Owner.alive()
	if err == nil && alive {
		err = fmt.Errorf("bottle %s: its supervisor %d lives: %w", r.Name, r.Owner.PID, errdefs.ErrUnavailable)
	}
	if err != nil {
		return nil, errors.Join(err, own.release())
	}
	return own, nil
}

// held looks whether somebody holds a lock, without taking it.
func held(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}
