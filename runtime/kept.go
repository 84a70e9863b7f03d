package runtime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"carboy/runtime/disk"

	"github.com/containerd/errdefs"
)

// What is kept of projects and of what agents made of them.
const (
	resultTime  = 7 * 24 * time.Hour // after the bottle's end
	mostResults = 20 << 30           // bytes, of all
	resultGrace = 24 * time.Hour     // not removed for its size before
	mostTrees   = 10
	treesSize   = 10 << 30 // bytes, of all
)

// kept removes what is no longer kept. Results of bottles that are there stay. A
// patient sweep does not measure results, for which every file is looked at.
func (g *gc) kept(ctx context.Context) {
	results, err := g.h.Results(ctx)
	g.failed(err)
	g.results(ctx, results)
	trees, err := g.h.trees(ctx, "")
	g.failed(err)
	g.failed(g.trees(ctx, trees))
}

func (g *gc) results(ctx context.Context, newestFirst []Result) {
	keeps := retention{last: map[named]bool{}}
	counted := map[string]bool{} // snapshots of copies
	for _, r := range newestFirst {
		if g.leased[r.Instance] || g.h.Lives(r.Instance) || r.StateDir != g.h.StateDir {
			continue
		}
		var total int64
		if !g.Patient {
			size, err := g.h.resultSize(ctx, r)
			copies, copyErr := g.h.copySize(ctx, r, counted)
			if err := errors.Join(err, copyErr); err != nil {
				g.failed(err) // about this one only
			}
			total = size + copies
		}
		if keeps.drops(r, total, time.Since(g.h.endOf(r))) {
			g.add(Swept{Kind: "result", Name: r.Name, Instance: r.Instance}, func(h *Host) error { return h.DropResult(ctx, r) })
		}
	}
}

// retention is asked about each result, the newest first.
type retention struct {
	total int64
	last  map[named]bool // whose last one was seen
}

// named is a bottle's name with whose it was: nobody's next result takes the place
// of another's.
type named struct {
	name string
	user int
}

// drops says whether a result goes that takes so many bytes, so long after the
// end. What somebody has not seen yet goes for its age only.
func (k *retention) drops(r Result, size int64, ended time.Duration) bool {
	k.total += size
	who := named{r.Name, r.User}
	tooMuch := k.total > mostResults && k.last[who] && ended > resultGrace
	k.last[who] = true
	return tooMuch || ended > resultTime
}

// resultSize is what the agent wrote.
func (h *Host) resultSize(ctx context.Context, r Result) (int64, error) {
	l, err := h.snapshotLayers(ctx, r.record().workspaceID())
	if err == nil {
		var size int64
		if size, err = disk.Tree(l.upper); err == nil {
			return size, nil
		}
	}
	return 0, fmt.Errorf("measure the result of %s: %w", r.Name, err)
}

// chainSize is that of a snapshot and those below it which have not been counted.
func (h *Host) chainSize(ctx context.Context, name string, counted map[string]bool) (total int64, err error) {
	snapshots := h.Client.SnapshotService(h.Snapshotter)
	for name != "" && !counted[name] {
		counted[name] = true
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

// copySize is that of the copy that a result is a change of.
func (h *Host) copySize(ctx context.Context, r Result, counted map[string]bool) (int64, error) {
	info, err := h.Client.SnapshotService(h.Snapshotter).Stat(ctx, r.record().workspaceID())
	if err != nil {
		return 0, err
	}
	return h.chainSize(ctx, info.Parent, counted)
}

// endOf is when a bottle ended, as its record beside the logs tells, or what was
// written there last.
func (h *Host) endOf(r Result) time.Time {
	dir := filepath.Join(h.LogDir, r.Instance)
	if about, err := readHistory(dir); err == nil && !about.Ended.IsZero() {
		return about.Ended
	}
	if last := lastWritten(dir); last.After(r.Started) {
		return last
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
	for i, t := range newestFirst {
		size, err := g.h.treeSize(ctx, t)
		gone := errdefs.IsNotFound(err)
		if err != nil && !gone {
			g.failed(fmt.Errorf("measure the copy of %q: %w", t.Directory, err))
			continue
		}
		key := t.key()
		tooMuch := len(seen) >= mostTrees || i > 0 && total+size > treesSize // the newest is needed, whatever its size
		if superseded := seen[key]; gone || superseded || t.Boot != boot || tooMuch {
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
func (h *Host) treeSize(ctx context.Context, t Tree) (int64, error) {
	return h.chainSize(ctx, t.Snapshot, map[string]bool{})
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

// Kept lists it, with sizes. The list is good also where something could not be
// measured.
func (h *Host) Kept(ctx context.Context) (k Kept, err error) {
	if k.Copies, err = h.trees(ctx, ""); err != nil {
		return k, err
	}
	if k.Results, err = h.Results(ctx); err != nil {
		return k, err
	}
	for i := range k.Copies {
		var sizeErr error
		if k.Copies[i].Size, sizeErr = h.treeSize(ctx, k.Copies[i]); !errdefs.IsNotFound(sizeErr) {
			err = errors.Join(err, sizeErr)
		}
	}
	for i := range k.Results {
		var sizeErr error
		if k.Results[i].Size, sizeErr = h.resultSize(ctx, k.Results[i]); !errdefs.IsNotFound(sizeErr) {
			err = errors.Join(err, sizeErr)
		}
	}
	return k, err
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

// dropResults removes the result of the last bottle with a name that has ended, or
// that of an instance.
func (h *Host) dropResults(ctx context.Context, name string) (found bool, err error) {
	all, err := h.Results(ctx)
	if err != nil {
		return false, err
	}
	ended := slices.DeleteFunc(all, func(r Result) bool { return h.Lives(r.Instance) })
	r, found := called(ended, name)
	if !found {
		return false, nil
	}
	return true, h.DropResult(ctx, r)
}
