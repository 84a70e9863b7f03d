package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
)

// labelCache marks the leases of a build cache: others' buildkits may work in
// the same namespace.
const labelCache = "carboy/build-cache"

// ownLeases marks what it makes.
type ownLeases struct {
	leases.Manager
	cache string
}

func (o ownLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	return o.Manager.Create(ctx, append(opts, leases.WithLabel(labelCache, o.cache))...)
}

func (k *buildkit) leases(ctx context.Context) ([]leases.Lease, error) {
	all, err := k.worker.LeaseManager().List(ctx, fmt.Sprintf("labels.%q==%s", labelCache, containerPrefix(k.root)))
	if err != nil {
		return nil, fmt.Errorf("leases of the build cache: %w", err)
	}
	return all, nil
}

// dropLost removes the leases that a killed controller made for records that it
// did not come to write: they have no end of their own.
func (k *buildkit) dropLost(ctx context.Context) error {
	records, err := k.worker.MetadataStore.All()
	if err != nil {
		return fmt.Errorf("records of the build cache: %w", err)
	}
	known := map[string]bool{}
	for _, r := range records {
		known[r.ID()] = true
	}
	return k.dropLeases(ctx, func(l leases.Lease) bool {
		record, more, _ := strings.Cut(l.ID, "-")
		return !known[record] || more == "view" // of a mount of the killed one
	})
}

// dropTemporary removes what BuildKit would hold for builds to come.
func (k *buildkit) dropTemporary(ctx context.Context) error {
	return k.dropLeases(ctx, func(l leases.Lease) bool {
		_, temporary := l.Labels["buildkit/lease.temporary"]
		return temporary
	})
}

func (k *buildkit) dropLeases(ctx context.Context, which func(leases.Lease) bool) error {
	all, err := k.leases(ctx)
	errs := []error{err}
	for _, l := range all {
		if !which(l) {
			continue
		}
		if err := k.worker.LeaseManager().Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("lease %s: %w", l.ID, err))
		}
	}
	return errors.Join(errs...)
}
