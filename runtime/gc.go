package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Swept is what gc did, or would do, about one thing.
type Swept struct {
	Name     string        `json:"name,omitempty"`
	Instance string        `json:"instance"`
	Kind     string        `json:"kind"` // bottle, pull, container, lock, log, result or copy
	Took     time.Duration `json:"took"` // in nanoseconds
	Steps    []Step        `json:"steps,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// Sweep is how GC goes about it.
type Sweep struct {
	Dry     bool // only say what would be removed
	Patient bool // leave out what has failed lately: it may hang
}

// GC removes what dead bottles left behind: those of this containerd namespace
// whose lock nobody holds and whose supervisor is gone. Live and kept bottles,
// and whatever is not carboy's, are not touched.
func (h *Host) GC(ctx context.Context, s Sweep) ([]Swept, error) {
	records, unknown, err := h.records(ctx)
	if err != nil {
		return nil, err
	}
	swept := []Swept{}
	errs := unknown
	add := func(what Swept, f func(*Host) error) {
		start := time.Now()
		if !s.Dry {
			traced := *h
			traced.Trace = &Trace{Start: start}
			err := f(&traced)
			what.Steps = traced.Trace.Steps()
			if errors.Is(err, errHeld) {
				return // it lives after all, or another gc is at it
			}
			if err != nil {
				what.Error = err.Error()
				errs = append(errs, err)
			}
		}
		what.Took = time.Since(start)
		swept = append(swept, what)
	}
	for _, r := range records {
		if state := h.state(r); state != StateDead && state != StateLeaking || s.Patient && postponed(r.lockPath()) {
			continue
		}
		add(Swept{Kind: "bottle", Name: r.Name, Instance: r.Instance}, func(h *Host) error {
			own, err := h.takeDead(ctx, r)
			if err != nil {
				return err
			}
			return h.reapDead(ctx, r, own)
		})
	}
	pulls, err := h.deadPulls(ctx)
	errs = append(errs, err)
	for _, l := range pulls {
		add(Swept{Kind: "pull", Name: l.ID}, func(h *Host) error { return h.Images.Release(ctx, l, true) })
	}
	leased := instances(records)
	if len(unknown) == 0 { // else what looks like nobody's may be of another version's bottle
		orphans, err := h.orphans(ctx, leased)
		errs = append(errs, err)
		for _, id := range orphans {
			add(Swept{Kind: "container", Instance: id}, func(h *Host) error { return h.removeCell(ctx, id) })
		}
		for _, instance := range h.freeLocks(leased) {
			add(Swept{Kind: "lock", Instance: instance}, func(h *Host) error { return h.dropLock(instance) })
		}
	}
	errs = append(errs, h.sweepKept(ctx, s.Patient, leased, add))
	for _, instance := range h.oldLogs(leased) {
		add(Swept{Kind: "log", Instance: instance}, func(h *Host) error { return os.RemoveAll(filepath.Join(h.LogDir, instance)) })
	}
	if !s.Dry {
		errs = append(errs, h.sweepProbe())
	}
	return swept, errors.Join(errs...)
}

// orphans are containers of ours whose lease is gone.
func (h *Host) orphans(ctx context.Context, leased map[string]bool) ([]string, error) {
	containers, err := h.Client.ContainerService().List(ctx, `labels."`+labelInstance+`"`)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, c := range containers {
		instance := c.Labels[labelInstance]
		// A bottle that was claimed after our listing holds its lock. One of
		// another state directory has its lock there, and its own carboy to sweep it.
		if c.Labels[labelStateDir] == h.StateDir && !leased[instance] && !held(filepath.Join(locksDir(h.StateDir), instance)) {
			ids = append(ids, c.ID)
		}
	}
	return ids, nil
}

// freeLocks are lock files that a process left which died before it made a
// lease, or after it deleted it.
func (h *Host) freeLocks(leased map[string]bool) []string {
	entries, err := os.ReadDir(locksDir(h.StateDir))
	if err != nil {
		return nil // none was ever made
	}
	var free []string
	for _, e := range entries {
		path := filepath.Join(locksDir(h.StateDir), e.Name())
		if !leased[e.Name()] && !held(path) && h.ownLock(path) {
			free = append(free, e.Name())
		}
	}
	return free
}

// ownLock leaves out locks of bottles in another containerd namespace, which are
// not among our records.
func (h *Host) ownLock(path string) bool {
	namespace, err := os.ReadFile(path)
	return err == nil && (len(namespace) == 0 || string(namespace) == h.Namespace)
}

func instances(records []Record) map[string]bool {
	all := map[string]bool{}
	for _, r := range records {
		all[r.Instance] = true
	}
	return all
}

// logTime is how long the logs of a bottle are kept after the last line.
const logTime = 7 * 24 * time.Hour

// oldLogs are of bottles that ended long ago. What is not named like an
// instance is not ours.
func (h *Host) oldLogs(leased map[string]bool) []string {
	entries, err := os.ReadDir(h.LogDir)
	if err != nil {
		return nil // none was ever made
	}
	var old []string
	for _, e := range entries {
		if instanceName.MatchString(e.Name()) && !leased[e.Name()] && time.Since(lastWritten(filepath.Join(h.LogDir, e.Name()))) > logTime {
			old = append(old, e.Name())
		}
	}
	return old
}

// lastWritten is the time of the newest file of a directory, or its own.
func lastWritten(dir string) (last time.Time) {
	entries, _ := os.ReadDir(dir) // none is as old as can be
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	if info, err := os.Stat(dir); err == nil && len(entries) == 0 {
		last = info.ModTime()
	}
	return last
}

func (h *Host) dropLock(instance string) error {
	own, err := tryLock(filepath.Join(locksDir(h.StateDir), instance))
	if err != nil {
		return err
	}
	return own.remove()
}

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
