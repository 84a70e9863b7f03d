package main

import (
	"context"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// unpacked gives BuildKit the layers that containerd has unpacked under their
// own names: it would extract each again, under a name of its own. A snapshot
// that it makes to extract into begins on top of the layer itself, and nothing
// is applied to it.
type unpacked struct {
	snapshots.Snapshotter

	mu   sync.Mutex
	full map[string]bool // by the snapshot's upper directory
}

// extraction is how BuildKit names such a snapshot (v0.34.2, cache/refs.go,
// unlazyLayer): with the chain id of the layer.
const extraction = "extract-"

func (u *unpacked) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	_, chain, ok := strings.Cut(key, " ")
	if !ok || !strings.HasPrefix(key, extraction) || !u.has(ctx, chain) {
		return u.Snapshotter.Prepare(ctx, key, parent, opts...)
	}
	mounts, err := u.Snapshotter.Prepare(ctx, key, chain, opts...)
	if err != nil {
		return nil, err
	}
	if upper := option(mounts, "upperdir="); upper != "" {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.full[upper] = true
	} // else it is extracted again, over itself
	return mounts, nil
}

// has is whether a layer is there with all below it.
func (u *unpacked) has(ctx context.Context, chain string) bool {
	if _, err := digest.Parse(chain); err != nil {
		return false
	}
	info, err := u.Stat(ctx, chain)
	return err == nil && info.Kind == snapshots.KindCommitted
}

func (u *unpacked) holds(mounts []mount.Mount) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.full[option(mounts, "upperdir=")]
}

// applier leaves out what is there already.
type applier struct {
	diff.Applier
	unpacked *unpacked
}

func (a applier) Apply(ctx context.Context, layer ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	id, err := digest.Parse(layer.Annotations[labels.LabelUncompressed])
	if err != nil || !a.unpacked.holds(mounts) {
		return a.Applier.Apply(ctx, layer, mounts, opts...)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: id}, nil
}
