package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"carboy/runtime/workspace"
)

// workspaceID is the snapshot that takes what the agent writes to its
// workspace.
func (r Record) workspaceID() string { return r.Instance + "-w" }

// workspaceDir is where that snapshot is mounted while the bottle lives, once:
// two mounts of one upper directory are undefined.
func (r Record) workspaceDir() string { return filepath.Join(r.dir(), "workspace") }

// workspaceTree is what is shown to the agent.
func (r Record) workspaceTree() string { return filepath.Join(r.workspaceDir(), treeFiles) }

// place puts the project where the agent's container will find it. Its result
// is recorded last: until then there is none to keep.
func (b *Bottle) place(ctx context.Context) (err error) {
	if b.Workspace == nil && len(b.plan.Mounts) == 0 {
		return nil
	}
	defer b.host.Trace.step("workspace")()
	if err := b.resolveCommand(b.images.agent); err != nil {
		return err
	}
	root, err := b.openImage(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	owner, err := b.workspaceOwner(root)
	if err != nil {
		return err
	}
	if err := b.placeMounts(root, owner); err != nil || b.Workspace == nil {
		return err
	}
	if err := b.placeAs(ctx, root, owner); err != nil {
		return fmt.Errorf("workspace %q: %w", b.Workspace.Directory, err)
	}
	return nil
}

func (b *Bottle) placeAs(ctx context.Context, root *os.File, owner workspace.Owner) (err error) {
	if err := os.MkdirAll(b.workspaceDir(), 0o700); err != nil {
		return err
	}
	if err := checkTarget(root, b.Workspace.Target, true); err != nil {
		return fmt.Errorf("%w: choose another --workspace-target", err)
	}
	switch b.Workspace.Mode {
	case ModeCopy:
		err = b.copyTree(ctx, owner)
	case ModeOverlay:
		err = b.overlayWorkspace(ctx, owner)
	default:
		return b.bindWorkspace(owner)
	}
	if err != nil {
		return err
	}
	return b.recordResult(ctx)
}

// settle ends a workspace: what the agent changed stays as the bottle's result,
// and without a change nothing does.
func (h *Host) settle(ctx context.Context, r Record) error {
	if err := errors.Join(unmountBelow(r.mountsDir()), unmountBelow(r.workspaceDir())); err != nil {
		return err
	}
	if r.Workspace == nil || r.Workspace.Mode == ModeBind {
		return nil
	}
	return h.settleResult(ctx, r)
}

// unmountBelow reads the host's list of mounts only where there can be one:
// most bottles have none.
func unmountBelow(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := mount.UnmountRecursive(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}
