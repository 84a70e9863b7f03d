package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"carboy/runtime/buildproto"
)

// serveBuild serves one build and says whether the cache is to be pruned after
// it. That takes as long as the rest of a build that finds all in the cache,
// and is left out where nothing came in since it was done to the same size.
func (k *buildkit) serveBuild(ctx context.Context, c buildproto.Controller) (due bool, err error) {
	before, err := k.worker.MetadataStore.All()
	if err != nil {
		return false, fmt.Errorf("records of the build cache: %w", err)
	}
	if err := k.serveWire(ctx); err != nil {
		return false, err
	}
	after, err := k.worker.MetadataStore.All()
	if err != nil {
		return false, fmt.Errorf("records of the build cache: %w", err)
	}
	return !sameRecords(before, after) || k.prunedTo() != c.Keep, nil
}

func sameRecords(a, b []*metadata.StorageItem) bool {
	ids := func(items []*metadata.StorageItem) (all []string) {
		for _, i := range items {
			all = append(all, i.ID())
		}
		slices.Sort(all)
		return all
	}
	return slices.Equal(ids(a), ids(b))
}

// prunedTo is the size of the last prune. One that was not finished has none.
func (k *buildkit) prunedTo() int64 {
	b, err := os.ReadFile(filepath.Join(k.root, prunedFile))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

const prunedFile = "pruned-to"

// prune removes the least recently used of the build cache until it takes at
// most keep bytes. An empty cache is what a keep of zero asks for.
func (k *buildkit) prune(ctx context.Context, keep int64) (removed int64, err error) {
	mark := filepath.Join(k.root, prunedFile)
	if err := os.RemoveAll(mark); err != nil {
		return 0, err
	}
	usage := make(chan client.UsageInfo, 32)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(usage)
		return k.worker.Prune(gctx, usage, client.PruneInfo{All: true, MaxUsedSpace: keep})
	})
	g.Go(func() error {
		for u := range usage {
			removed += u.Size
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return removed, fmt.Errorf("prune the build cache: %w", err)
	}
	return removed, os.WriteFile(mark, []byte(strconv.FormatInt(keep, 10)), 0o600)
}
