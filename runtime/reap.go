package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"carboy/netns"
)

// reap removes everything a record speaks of and its lease last. It is used by
// a failed bring-up, the normal end, rm and gc, takes each step even when one
// fails, and can be run again. own is the bottle's lock, which it gives up; held
// is the network where this process is who made it, else nil.
//
// Once begun it is not cut short: half of it done is worse than none.
func (h *Host) reap(ctx context.Context, r Record, own *lock, held *netns.Network) error {
	defer h.Trace.step("tear-down")()
	_ = os.WriteFile(filepath.Join(r.dir(), endingFile), nil, 0o600) // only for ls
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTime)
	defer cancel()
	m := &removal{host: h, record: r}
	if m.live(ctx, held) {
		m.step("work directories", func() error { return h.removeWorkDirs(ctx, r) })
		m.step("workspace", func() error { return h.settle(ctx, r) })
	}
	if len(m.errs) == 0 { // the runtime's state is there: what is left needs it
		m.step("run directory", func() error { return removeTree(r.dir()) })
	}
	if len(m.errs) == 0 {
		m.step("lease", func() error { return h.deleteLease(ctx, r) })
	}
	if len(m.errs) > 0 {
		r.leaks(m.errs)
		return errors.Join(append(m.errs, fmt.Errorf("bottle %s is not removed completely, its record stays: run `carboy gc` again", r.Name), own.postpone())...)
	}
	return own.remove()
}

// removal is one run of the reaper.
type removal struct {
	host   *Host
	record Record
	errs   []error
}

func (m *removal) step(what string, f func() error) {
	defer m.host.Trace.step("remove " + what)()
	if err := f(); err != nil {
		m.errs = append(m.errs, fmt.Errorf("remove %s of bottle %s: %w", what, m.record.Name, err))
	}
}

// live removes what runs and what it runs in, and says whether the containers are
// gone.
func (m *removal) live(ctx context.Context, held *netns.Network) (gone bool) {
	h, r := m.host, m.record
	egress, err := h.openEgress(ctx, r, held)
	if err != nil {
		m.errs = append(m.errs, fmt.Errorf("egress namespace of bottle %s: %w", r.Name, err))
	}
	defer egress.Close()
	m.step("containers", func() error { return h.removeCells(ctx, r) })
	gone = len(m.errs) == 0
	if held != nil {
		m.step("namespaces", held.Close)
	}
	m.step("network", func() error { return netns.Detach(ctx, r.Network, egress.path()) })
	if gone { // a shim that still has a container is not a stray one
		m.step("shims", func() error { return h.endStrayShims(ctx, r) })
	}
	m.step("cgroups", func() error {
		return errors.Join(removeCgroup(r.cgroup(r.agentID())), removeCgroup(r.cgroup(r.proxyID())))
	})
	if held != nil { // we are in the supervisor's group, or were
		return gone
	}
	m.step("supervisor's cgroup", func() error { return removeCgroup(r.supervisorGroup()) })
	if gone { // containerd may only now have done what a killed client asked for
		m.step("late containers", func() error { return h.removeCells(ctx, r) })
	}
	return gone
}

// removeTree also takes away what a runtime mounted below a directory.
func removeTree(dir string) error {
	if err := mount.UnmountRecursive(dir, unix.MNT_DETACH); err != nil {
		return err
	}
	if err := checkUnmounted(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// checkUnmounted keeps the removal of a directory out of what is mounted below.
func checkUnmounted(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is still mounted: %w", mounts[0].Mountpoint, errdefs.ErrUnavailable)
	}
	return nil
}

// openNamespace holds a namespace beyond the end of its last process; nil is
// none.
type openNamespace struct{ f *os.File }

func (n openNamespace) path() string {
	if n.f == nil {
		return ""
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.f.Fd())
}

func (n openNamespace) Close() {
	if n.f != nil {
		_ = n.f.Close()
	}
}

// openEgress is the egress namespace if something still lives in it. Only an
// operator's own network needs it: its plugins may have to undo what they did
// there.
func (h *Host) openEgress(ctx context.Context, r Record, held *netns.Network) (openNamespace, error) {
	if r.Network.Own {
		return openNamespace{}, nil
	}
	path := fmt.Sprintf("/proc/%d/ns/net", h.pid(ctx, r.proxyID()))
	if held != nil {
		path = held.EgressPath()
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return openNamespace{}, nil
	}
	return openNamespace{f}, err
}

// removeCells removes both containers. What a shim that hangs keeps from it can
// be removed once the shim has been killed.
func (h *Host) removeCells(ctx context.Context, r Record) error {
	err := h.removeBoth(ctx, r)
	if err == nil || errdefs.IsUnavailable(err) { // without containerd there is no clean end
		return err
	}
	if shimErr := h.endStrayShims(ctx, r); shimErr != nil {
		return errors.Join(err, shimErr)
	}
	return h.removeBoth(ctx, r)
}

// removeBoth does both at once: most of it is waiting.
func (h *Host) removeBoth(ctx context.Context, r Record) error {
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

// reapDead reaps a bottle that nobody supervises, on a lock that one of the take
// functions gave. It fails with errdefs.ErrFailedPrecondition for one that was
// kept on purpose.
func (h *Host) reapDead(ctx context.Context, r Record, own *lock) error {
	if own == nil {
		return nil
	}
	if r.kept() {
		return errors.Join(fmt.Errorf("bottle %s was kept for inspection: %w", r.Name, errdefs.ErrFailedPrecondition), own.release())
	}
	return errors.Join(h.endHistory(r), h.reap(ctx, r, own, nil))
}

// awaitDead is takeDead with patience for another that is at the bottle, a gc
// for one, but not for its supervisor.
func (h *Host) awaitDead(ctx context.Context, r Record) (*lock, error) {
	for {
		own, err := h.takeDead(ctx, r)
		if !errors.Is(err, errHeld) {
			return own, err
		}
		if alive, aliveErr := r.Owner.alive(); alive || aliveErr != nil {
			return nil, errors.Join(err, aliveErr)
		}
		if pause(ctx) != nil {
			return nil, err
		}
	}
}

// takeDead locks a bottle that has no supervisor. Between the listing and the
// lock it may have been reaped, and its name taken by a new one: then there is
// nothing to do and the lock is nil. It fails with errHeld for a bottle that
// somebody is at.
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
		err = fmt.Errorf("bottle %s: its supervisor %d lives: %w", r.Name, r.Owner.PID, errHeld)
	}
	if err != nil {
		return nil, errors.Join(err, own.release())
	}
	return own, nil
}
