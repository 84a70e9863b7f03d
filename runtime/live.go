package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"carboy/runtime/workspace"
)

// overlayWorkspace puts the bottle's snapshot over the live directory. The
// overlay's two directories are in the snapshot.
func (b *Bottle) overlayWorkspace(ctx context.Context, owner workspace.Owner) (err error) {
	mounts, err := b.host.Client.SnapshotService(b.host.Snapshotter).Prepare(ctx, b.workspaceID(), "")
	if err != nil {
		return fmt.Errorf("prepare snapshot: %w", err)
	}
	l, err := layersOf(mounts)
	if err != nil {
		return err
	}
	upper, work := filepath.Join(l.upper, treeFiles), filepath.Join(l.upper, "work")
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if err := likeTop(upper, b.options.Source.Top, owner); err != nil {
		return err
	}
	users, err := mapping(b.options.Source, owner, b.options.Runsc != "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, users.Close()) }()
	lower := filepath.Join(b.workspaceDir(), "live")
	for _, dir := range []string{lower, b.workspaceTree()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if err := mountMapped(b.options.Source.Top, lower, users, unix.MOUNT_ATTR_RDONLY); err != nil {
		return err
	}
	// The overlay has its own hold on what is below it.
	defer func() { err = errors.Join(err, mount.Unmount(lower, unix.MNT_DETACH)) }()
	over := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + lower, "upperdir=" + upper, "workdir=" + work}}}
	if err := mountSnapshot(over, b.workspaceTree()); err != nil {
		return fmt.Errorf("mount over the live directory: %w", err)
	}
	return nil
}

// likeTop makes the top of the upper directory what the project's is: it covers
// it.
func likeTop(dir string, top *os.File, owner workspace.Owner) error {
	info, err := top.Stat()
	if err != nil {
		return err
	}
	return errors.Join(os.Chown(dir, owner.UID, owner.GID), os.Chmod(dir, info.Mode().Perm()))
}
