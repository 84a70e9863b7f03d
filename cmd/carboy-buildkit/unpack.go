package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/worker/base"
	chain "github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// aliasWorker exports images whose root file system needs no unpacking: it is
// there already as the last step's snapshot, and gets the name by which
// containerd looks for it. BuildKit's own way extracts the layer that it has
// just packed.
type aliasWorker struct {
	*base.Worker
	unsynced  *unsynced
	snapshots snapshots.Snapshotter
	name      string // the snapshotter's
	content   content.Store
}

// Exporter wraps the image exporter.
func (w *aliasWorker) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	inner, err := w.Worker.Exporter(name, sm)
	if err != nil {
		return nil, err
	}
	return aliasExporter{inner, w}, nil
}

type aliasExporter struct {
	exporter.Exporter
	worker *aliasWorker
}

func (e aliasExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	instance, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	return aliasInstance{instance, e.worker}, nil
}

type aliasInstance struct {
	exporter.ExporterInstance
	worker *aliasWorker
}

func (e aliasInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	synced := make(chan error, 1)
	go func() { synced <- e.worker.unsynced.sync() }() // while layers are packed
	response, finalize, ref, err := e.ExporterInstance.Export(ctx, src, info)
	if syncErr := <-synced; err == nil && syncErr != nil {
		err = errors.Join(syncErr, ref.Release())
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if err := e.worker.alias(ctx, src, ref.Descriptor()); err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("name the image's snapshot: %w", err), ref.Release())
	}
	return response, finalize, ref, nil
}

// alias does nothing for an image of another platform.
func (w *aliasWorker) alias(ctx context.Context, src *exporter.Source, image ocispec.Descriptor) error {
	result, err := hostResult(src)
	if result == nil || err != nil {
		return err
	}
	config, err := images.Config(ctx, w.content, image, platforms.Default())
	if err != nil {
		return err
	}
	diffs, err := images.RootFS(ctx, w.content, config)
	if err != nil || len(diffs) == 0 {
		return err
	}
	top := chain.ChainID(diffs).String()
	ctx, done, err := leaseutil.WithLease(ctx, w.LeaseManager(), leaseutil.MakeTemporary)
	if err != nil {
		return err
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }() // it expires
	if err := w.hold(ctx, top); err != nil {
		return err
	}
	if _, err := w.snapshots.Stat(ctx, top); errdefs.IsNotFound(err) {
		err = w.nameSnapshot(ctx, result, top)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	key := "containerd.io/gc.ref.snapshot." + w.name
	_, err = w.content.Update(ctx, content.Info{Digest: config.Digest, Labels: map[string]string{key: top}}, "labels."+key)
	return err
}

// hold keeps a snapshot that may be there from the garbage collector.
func (w *aliasWorker) hold(ctx context.Context, name string) error {
	id, _ := leases.FromContext(ctx)
	return w.LeaseManager().AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: name, Type: "snapshots/" + w.name})
}

// nameSnapshot commits nothing on top of the result, under the name.
func (w *aliasWorker) nameSnapshot(ctx context.Context, result cache.ImmutableRef, name string) error {
	if err := errors.Join(result.Extract(ctx, nil), result.Finalize(ctx)); err != nil {
		return err
	}
	parent, err := w.snapshotOf(result)
	if err != nil {
		return err
	}
	key := "carboy-" + identity.NewID()
	if _, err := w.snapshots.Prepare(ctx, key, parent); err != nil {
		return err
	}
	err = w.snapshots.Commit(ctx, name, key)
	if err == nil {
		return nil
	}
	removed := w.snapshots.Remove(context.WithoutCancel(ctx), key)
	if errdefs.IsAlreadyExists(err) {
		return removed
	}
	return errors.Join(err, removed)
}

// snapshotOf reads the record of a result: BuildKit has no other way to tell.
func (w *aliasWorker) snapshotOf(result cache.ImmutableRef) (string, error) {
	record, ok := w.MetadataStore.Get(result.ID())
	if !ok {
		return "", fmt.Errorf("record of %s: %w", result.ID(), errdefs.ErrNotFound)
	}
	name := result.ID()
	if v := record.Get("cache.snapshot"); v != nil {
		if err := v.Unmarshal(&name); err != nil {
			return "", fmt.Errorf("record of %s: %w", result.ID(), err)
		}
	}
	return name, nil
}

// hostResult is what was built for this host, or nothing.
func hostResult(src *exporter.Source) (cache.ImmutableRef, error) {
	if src.Ref != nil {
		built, err := exptypes.ParsePlatforms(src.Metadata)
		if err != nil || len(built.Platforms) != 1 || !platforms.Default().Match(built.Platforms[0].Platform) {
			return nil, err
		}
		return src.Ref, nil
	}
	if len(src.Refs) == 0 {
		return nil, nil // FROM scratch and no more
	}
	built, err := exptypes.ParsePlatforms(src.Metadata)
	if err != nil {
		return nil, err
	}
	for _, p := range built.Platforms {
		if platforms.Default().Match(p.Platform) {
			return src.Refs[p.ID], nil
		}
	}
	return nil, nil
}
