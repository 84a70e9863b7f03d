package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/workspace"
)

// A tree is a committed snapshot of a project directory. It holds the files and
// the index of what they looked like, and belongs to a lease of its own.
const (
	labelTree     = "carboy/tree"      // the key
	labelTreeInfo = "carboy/tree-info" // a Tree
	treeLease     = "carboy.tree."
	treeFiles     = "tree"  // in the snapshot
	treeIndex     = "index" // likewise
)

// mostLayers is how many copies of changes a tree may be made of.
const mostLayers = 8

// Tree is the copy of a project that starts begin with.
type Tree struct {
	Directory string    `json:"directory"`
	Snapshot  string    `json:"snapshot"`
	Layers    int       `json:"layers"`
	User      int       `json:"user"` // uid of whose copy it is
	Boot      string    `json:"boot"` // id; after a crash of the host a copy may be damaged
	Created   time.Time `json:"created"`
	Size      int64     `json:"size,omitempty"` // in bytes, of all layers; not part of the record

	lease leases.Lease
}

// treeKey is the same for what may use the same copy: the same directory, seen
// by the same user, for the same user of an image.
func treeKey(s *workspace.Source, owner workspace.Owner) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.Top.Fd()), &st); err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := json.NewEncoder(sum).Encode([]any{s.Path, st.Dev, st.Ino, s.User.UID, s.User.GID, s.User.Groups, owner}); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

// trees are those with a key, or all; newest first. A lease without a snapshot
// is of a carboy that was killed.
func (h *Host) trees(ctx context.Context, key string) ([]Tree, error) {
	filter := `labels."` + labelTree + `"`
	if key != "" {
		filter += "==" + key
	}
	found, err := h.leases(ctx, filter)
	if err != nil {
		return nil, err
	}
	var all []Tree
	for _, l := range found {
		t := Tree{lease: l, Created: l.CreatedAt}
		if err := json.Unmarshal([]byte(l.Labels[labelTreeInfo]), &t); err != nil {
			return nil, fmt.Errorf("lease %s: %w: %w", l.ID, err, errdefs.ErrFailedPrecondition)
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Tree) int { return b.lease.CreatedAt.Compare(a.lease.CreatedAt) })
	return all, nil
}

// copyTree leaves the bottle's snapshot on an up-to-date copy of the project,
// and mounted.
func (b *Bottle) copyTree(ctx context.Context, owner workspace.Owner) error {
	key, err := treeKey(b.options.Source, owner)
	if err != nil {
		return err
	}
	// Two starts on one project take turns, and so does gc.
	turn, err := waitLock(ctx, b.host.treeLock(key), copyTime)
	if err != nil {
		return fmt.Errorf("wait for another copy of %q: %w", b.Workspace.Directory, err)
	}
	defer func() { err = errors.Join(err, turn.remove()) }()
	if _, err := turn.f.WriteString(b.host.Namespace); err != nil {
		return err
	}
	known, err := b.host.trees(ctx, key)
	if err != nil {
		return err
	}
	base, mounts, err := b.prepareOn(ctx, known)
	if err != nil {
		return err
	}
	changed, err := b.update(ctx, base, mounts, owner)
	if err != nil || !changed {
		return err
	}
	if err := b.commitTree(ctx, key, base); err != nil {
		return err
	}
	return b.host.dropTrees(ctx, known)
}

// copyTime is how long a start waits for another's copy of the same project.
const copyTime = 30 * time.Minute

func (h *Host) treeLock(key string) string { return filepath.Join(locksDir(h.StateDir), "tree-"+key) }

// prepareOn prepares the bottle's snapshot on the newest tree that is there, or
// an empty one.
func (b *Bottle) prepareOn(ctx context.Context, known []Tree) (Tree, []mount.Mount, error) {
	snapshots := b.host.Client.SnapshotService(b.host.Snapshotter)
	for _, t := range known {
		if t.Layers >= mostLayers || t.Boot != b.Owner.Boot {
			break
		}
		mounts, err := snapshots.Prepare(ctx, b.workspaceID(), t.Snapshot)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return t, nil, fmt.Errorf("prepare snapshot: %w", err)
		}
		return t, mounts, nil
	}
	mounts, err := snapshots.Prepare(ctx, b.workspaceID(), "")
	if err != nil {
		return Tree{}, nil, fmt.Errorf("prepare snapshot: %w", err)
	}
	return Tree{}, mounts, nil
}

// update brings the mounted snapshot up to date with the project.
func (b *Bottle) update(ctx context.Context, base Tree, mounts []mount.Mount, owner workspace.Owner) (changed bool, err error) {
	if _, err := layersOf(mounts); err != nil {
		return false, err
	}
	if err := mountSnapshot(mounts, b.workspaceDir()); err != nil {
		return false, fmt.Errorf("mount: %w", err)
	}
	if err := os.Mkdir(b.workspaceTree(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return false, err
	}
	top, err := os.Open(b.workspaceTree())
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	var old workspace.Index
	if base.Snapshot != "" {
		if old, err = b.readIndex(); err != nil {
			return false, fmt.Errorf("the last copy cannot be used: run `carboy workspace prune`: %w", err)
		}
	}
	began := time.Now()
	now, err := b.options.Source.Scan(ctx)
	if err != nil {
		return false, err
	}
	if changed, err = b.options.Source.Update(ctx, top, owner, old, now); err != nil || !changed {
		return changed, err
	}
	return true, b.writeIndex(now, began)
}

func (b *Bottle) indexPath() string { return filepath.Join(b.workspaceDir(), treeIndex) }

func (b *Bottle) readIndex() (workspace.Index, error) {
	text, err := os.ReadFile(b.indexPath())
	if err != nil {
		return workspace.Index{}, err
	}
	return workspace.ReadIndex(text)
}

func (b *Bottle) writeIndex(x workspace.Index, began time.Time) (err error) {
	if err := os.Remove(b.indexPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(b.indexPath(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return x.Write(f, began)
}

// commitTree makes a tree of what update wrote, under a lease that is there
// first, and prepares the bottle's snapshot on it.
func (b *Bottle) commitTree(ctx context.Context, key string, base Tree) error {
	if err := mount.Unmount(b.workspaceDir(), 0); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	id := newInstance()
	t := Tree{Directory: b.Workspace.Directory, Snapshot: "carboy-tree-" + id, Layers: base.Layers + 1, User: b.options.Source.User.UID, Boot: b.Owner.Boot, Created: time.Now().UTC()}
	info, err := json.Marshal(t)
	if err != nil {
		return err
	}
	lease, err := b.host.Client.LeasesService().Create(ctx, leases.WithID(treeLease+id),
		leases.WithLabels(map[string]string{labelTree: key, labelTreeInfo: string(info)}))
	if err != nil {
		return fmt.Errorf("create lease: %w", err)
	}
	snapshots := b.host.Client.SnapshotService(b.host.Snapshotter)
	if err := snapshots.Commit(leases.WithLease(ctx, lease.ID), t.Snapshot, b.workspaceID()); err != nil {
		return errors.Join(fmt.Errorf("commit snapshot: %w", err), b.host.Client.LeasesService().Delete(context.WithoutCancel(ctx), lease))
	}
	mounts, err := snapshots.Prepare(ctx, b.workspaceID(), t.Snapshot)
	if err != nil {
		return fmt.Errorf("prepare snapshot: %w", err)
	}
	if err := mountSnapshot(mounts, b.workspaceDir()); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

// dropTrees lets go of trees; what is built on them keeps their snapshots.
func (h *Host) dropTrees(ctx context.Context, trees []Tree) error {
	var errs []error
	for _, t := range trees {
		if err := h.Client.LeasesService().Delete(ctx, t.lease); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete lease %s: %w", t.lease.ID, err))
		}
	}
	return errors.Join(errs...)
}
