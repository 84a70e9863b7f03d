package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Listed is an image as `image ls` shows it. Size is of the content that is
// there, in bytes; images may share some.
type Listed struct {
	Ref     string    `json:"ref"`
	Digest  string    `json:"digest"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
}

// List returns the images by reference.
func (s Store) List(ctx context.Context) ([]Listed, error) {
	all, err := s.Client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	list := make([]Listed, 0, len(all))
	for _, img := range all {
		size, err := s.size(ctx, img.Target)
		if err != nil {
			return nil, fmt.Errorf("size of %s: %w", img.Name, err)
		}
		list = append(list, Listed{Ref: img.Name, Digest: img.Target.Digest.String(), Size: size, Created: img.CreatedAt})
	}
	slices.SortFunc(list, func(a, b Listed) int { return strings.Compare(a.Ref, b.Ref) })
	return list, nil
}

// size sums what is there of all platforms.
func (s Store) size(ctx context.Context, target ocispec.Descriptor) (sum int64, err error) {
	store := s.Client.ContentStore()
	seen := map[digest.Digest]bool{}
	err = images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		info, err := store.Info(ctx, desc.Digest)
		if errdefs.IsNotFound(err) || seen[desc.Digest] {
			return nil, images.ErrSkipDesc
		}
		if err != nil {
			return nil, err
		}
		seen[desc.Digest] = true
		sum += info.Size
		return images.Children(ctx, store, desc)
	}), target)
	return sum, err
}

// Find returns the images that references mean: a name, short or complete, or a
// digest or the first twelve or more of its digits, which may have many names.
func (s Store) Find(ctx context.Context, refs []string) ([]Listed, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var found []Listed
	for _, ref := range refs {
		matching, err := match(all, ref)
		if err != nil {
			return nil, err
		}
		if len(matching) == 0 {
			return nil, fmt.Errorf("no image %s: `carboy image ls` shows what is there: %w", ref, errdefs.ErrNotFound)
		}
		for _, m := range matching {
			if !slices.Contains(found, m) {
				found = append(found, m)
			}
		}
	}
	return found, nil
}

const fewestDigits = 12

func match(all []Listed, ref string) (found []Listed, err error) {
	digits := strings.TrimPrefix(ref, "sha256:")
	hex := len(digits) >= fewestDigits && strings.Trim(digits, "0123456789abcdef") == ""
	name, err := Normalize(ref)
	for _, img := range all {
		if img.Ref == ref || err == nil && img.Ref == name {
			return []Listed{img}, nil
		}
		if hex && strings.HasPrefix(img.Digest, "sha256:"+digits) {
			found = append(found, img)
		}
	}
	if hex {
		err = nil
	}
	for _, f := range found {
		if f.Digest != found[0].Digest {
			return nil, fmt.Errorf("%s is the begin of more than one digest: give more of it: %w", ref, errdefs.ErrInvalidArgument)
		}
	}
	return found, err
}
