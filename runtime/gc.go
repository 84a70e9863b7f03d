package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Swept is what gc did, or would do, about one thing.
type Swept struct {
	Name     string        `json:"name,omitempty"`
	Instance string        `json:"instance"`
	Kind     string        `json:"kind"` // bottle, build, pull, container, lock, log, result or copy
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
	h = h.everybodys()
	records, unknown, err := h.records(ctx)
	if err != nil {
		return nil, err
	}
	g := &gc{h: h, Sweep: s, leased: instances(records), swept: []Swept{}, errs: unknown}
	g.bottles(ctx, records)
	g.pulls(ctx)
	if len(unknown) == 0 { // else what looks like nobody's may be of another version's bottle
		g.strays(ctx)
	}
	g.kept(ctx)
	g.builds(ctx)
	for _, instance := range h.oldLogs(g.leased) {
		g.add(Swept{Kind: "log", Instance: instance}, func(h *Host) error { return os.RemoveAll(filepath.Join(h.LogDir, instance)) })
	}
	if !s.Dry {
		g.failed(h.sweepProbe())
	}
	return g.swept, errors.Join(g.errs...)
}

// gc is one of them.
type gc struct {
	Sweep
	h      *Host
	leased map[string]bool // instances
	swept  []Swept
	errs   []error
}

func (g *gc) failed(err error) { g.errs = append(g.errs, err) }

// add removes something, unless it lives after all, or another gc is at it.
func (g *gc) add(what Swept, remove func(*Host) error) {
	start := time.Now()
	if !g.Dry {
		traced := *g.h
		traced.Trace = &Trace{Start: start}
		err := remove(&traced)
		what.Steps = traced.Trace.Steps()
		if errors.Is(err, errHeld) {
			return
		}
		if err != nil {
			what.Error = err.Error()
			g.failed(err)
		}
	}
	what.Took = time.Since(start)
	g.swept = append(g.swept, what)
}

func (g *gc) bottles(ctx context.Context, records []Record) {
	for _, r := range records {
		if state := g.h.state(r); state != StateDead && state != StateLeaking || g.Patient && postponed(r.lockPath()) {
			continue
		}
		g.add(Swept{Kind: cmp.Or(r.Kind, "bottle"), Name: r.Name, Instance: r.Instance}, func(h *Host) error {
			own, err := h.takeDead(ctx, r)
			if err != nil {
				return err
			}
			return h.reapDead(ctx, r, own)
		})
	}
}

func (g *gc) pulls(ctx context.Context) {
	dead, err := g.h.deadPulls(ctx)
	g.failed(err)
	for _, l := range dead {
		g.add(Swept{Kind: "pull", Name: l.ID}, func(h *Host) error { return h.Images.Release(ctx, l, true) })
	}
}

func (g *gc) builds(ctx context.Context) {
	if g.h.killedBuild(ctx) {
		g.add(Swept{Kind: "build", Instance: "cache"}, func(h *Host) error { return h.sweepBuild(ctx) })
	}
}

func (g *gc) strays(ctx context.Context) {
	orphans, err := g.h.orphans(ctx, g.leased)
	g.failed(err)
	for _, id := range orphans {
		g.add(Swept{Kind: "container", Instance: id}, func(h *Host) error { return h.removeCell(ctx, id) })
	}
	for _, instance := range g.h.freeLocks(g.leased) {
		g.add(Swept{Kind: "lock", Instance: instance}, func(h *Host) error { return h.dropLock(instance) })
	}
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
