package image

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Users are the names of the bottles that use an image, by its digest.
type Users map[string][]string

// Remove removes the image of that name, and with it what no other holds. It
// fails with errdefs.ErrFailedPrecondition while bottles use it, unless forced.
func (s Store) Remove(ctx context.Context, img Listed, users Users, force bool) error {
	if by := users[img.Digest]; len(by) > 0 && !force {
		return fmt.Errorf("image %s is used by %s: end that first, or remove it with -f: %w", img.Ref, strings.Join(by, ", "), errdefs.ErrFailedPrecondition)
	}
	if err := s.Client.ImageService().Delete(ctx, img.Ref, images.SynchronousDelete()); err != nil {
		return fmt.Errorf("remove image %s: %w", img.Ref, err)
	}
	return nil
}

// Prunable are the images that nobody has a name for, as an import of an archive
// without names makes them; with all, every one that no bottle uses.
func (s Store) Prunable(ctx context.Context, users Users, all bool) ([]Listed, error) {
	list, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(img Listed) bool {
		return len(users[img.Digest]) > 0 || !all && named(img.Ref)
	}), nil
}

func named(ref string) bool {
	_, err := reference.ParseNamed(ref)
	return err == nil
}

// Usage is what content and snapshots of the namespace take on disk, in bytes.
func (s Store) Usage(ctx context.Context) (sum int64, err error) {
	err = s.Client.ContentStore().Walk(ctx, func(i content.Info) error {
		sum += i.Size
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("size of the content: %w", err)
	}
	store := s.Client.SnapshotService(s.Snapshotter)
	err = store.Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		if i.Kind != snapshots.KindCommitted {
			return nil // a live one is walked through to be measured
		}
		u, err := store.Usage(ctx, i.Name)
		if errdefs.IsNotFound(err) {
			return nil
		}
		sum += u.Size
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("size of the snapshots: %w", err)
	}
	return sum, nil
}
