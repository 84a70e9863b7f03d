package runtime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
)

// What is kept of projects and of what agents made of them.
const (
	resultTime  = 7 * 24 * time.Hour // after the bottle's end
	mostResults = 20 << 30           // bytes, of all
	mostTrees   = 10
	treesSize   = 10 << 30 // bytes, of all
)

// kept removes what is no longer kept. Results of bottles that are there stay. A
// patient sweep does not measure results, for which every file is looked at.
func (g *gc) kept(ctx context.Context) {
	results, err := g.h.Results(ctx)
	g.failed(err)
	g.failed(g.results(ctx, results))
	trees, err := g.h.trees(ctx, "")
	g.failed(err)
	g.failed(g.trees(ctx, trees))
}

func (g *gc) results(ctx context.Context, newestFirst []Result) error {
	var total int64
	for _, r := range newestFirst {
		if g.leased[r.Instance] || g.h.Lives(r.Instance) || r.StateDir != g.h.StateDir {
			continue
		}
		if !g.Patient {
			size, err := g.h.resultSize(ctx, r)
			if err != nil {
				return err
			}
			total += size
		}
		if total > mostResults || time.Since(g.h.endOf(r)) > resultTime {
			g.add(Swept{Kind: "result", Name: r.Name, Instance: r.Instance}, func(h *Host) error { return h.DropResult(ctx, r) })
		}
	}
	return nil
}

func (h *Host) resultSize(ctx context.Context, r Result) (int64, error) {
	size, err := h.Client.SnapshotService(h.Snapshotter).Usage(ctx, r.record().workspaceID())
	if err != nil {
		return 0, fmt.Errorf("measure the result of %s: %w", r.Name, err)
	}
	return size.Size, nil
}

// endOf is when a bottle ended, as its record beside the logs tells.
func (h *Host) endOf(r Result) time.Time {
	if about, err := readHistory(filepath.Join(h.LogDir, r.Instance)); err == nil && !about.Ended.IsZero() {
		return about.Ended
	}
	return r.Started
}

func (g *gc) trees(ctx context.Context, newestFirst []Tree) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	var total int64
	seen := map[string]bool{}
	for _, t := range newestFirst {
		size, err := g.h.treeSize(ctx, t)
		gone := errdefs.IsNotFound(err)
		if err != nil && !gone {
			return fmt.Errorf("measure the copy of %q: %w", t.Directory, err)
		}
		key := t.key()
		if superseded := seen[key]; gone || superseded || t.Boot != boot || len(seen) >= mostTrees || total+size > treesSize {
			g.add(t.swept(), func(h *Host) error { return h.dropTree(ctx, t) })
			continue
		}
		seen[key] = true
		total += size
	}
	return nil
}

func (t Tree) swept() Swept { return Swept{Kind: "copy", Name: t.Directory, Instance: t.Snapshot} }

func (t Tree) key() string { return t.lease.Labels[labelTree] }

// treeSize is that of all its layers.
func (h *Host) treeSize(ctx context.Context, t Tree) (total int64, err error) {
	snapshots := h.Client.SnapshotService(h.Snapshotter)
	for name := t.Snapshot; name != ""; {
		size, err := snapshots.Usage(ctx, name)
		if err != nil {
			return 0, err
		}
		info, err := snapshots.Stat(ctx, name)
		if err != nil {
			return 0, err
		}
		total, name = total+size.Size, info.Parent
	}
	return total, nil
}

// dropTree leaves alone a tree that a start is at.
func (h *Host) dropTree(ctx context.Context, t Tree) error {
	turn, err := tryLock(h.treeLock(t.key()))
	if err != nil {
		return err
	}
	return errors.Join(h.dropTrees(ctx, []Tree{t}), turn.remove())
}

// Kept is what is kept of projects: the copies that starts begin with, and the
// results of bottles.
type Kept struct {
	Copies  []Tree   `json:"copies"`
	Results []Result `json:"results"`
}

// Kept lists it, with sizes.
func (h *Host) Kept(ctx context.Context) (k Kept, err error) {
	if k.Copies, err = h.trees(ctx, ""); err != nil {
		return k, err
	}
	if k.Results, err = h.Results(ctx); err != nil {
		return k, err
	}
	for i := range k.Copies {
		if k.Copies[i].Size, err = h.treeSize(ctx, k.Copies[i]); err != nil && !errdefs.IsNotFound(err) {
			return k, err
		}
	}
	for i := range k.Results {
		if k.Results[i].Size, err = h.resultSize(ctx, k.Results[i]); err != nil && !errdefs.IsNotFound(err) {
			return k, err
		}
	}
	return k, nil
}

// Prune removes every copy that no start is at, and on request every result of
// a bottle that has ended.
func (h *Host) Prune(ctx context.Context, results bool) (swept []Swept, err error) {
	copies, err := h.trees(ctx, "")
	if err != nil {
		return nil, err
	}
	ended, err := h.Results(ctx)
	if err != nil {
		return nil, err
	}
	swept = []Swept{}
	var errs []error
	add := func(what Swept, err error) {
		if errors.Is(err, errHeld) {
			return
		}
		errs = append(errs, err)
		if err == nil {
			swept = append(swept, what)
		}
	}
	for _, t := range copies {
		add(t.swept(), h.dropTree(ctx, t))
	}
	for _, r := range ended {
		if results && !h.Lives(r.Instance) {
			add(Swept{Kind: "result", Name: r.Name, Instance: r.Instance}, h.DropResult(ctx, r))
		}
	}
	return swept, errors.Join(errs...)
}

// dropResults removes the results of ended bottles with a name, or that of an
// instance.
func (h *Host) dropResults(ctx context.Context, name string) (found bool, err error) {
	all, err := h.Results(ctx)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, r := range all {
		if (r.Name == name || r.Instance == name) && !h.Lives(r.Instance) {
			found = true
			errs = append(errs, h.DropResult(ctx, r))
		}
	}
	return found, errors.Join(errs...)
}
