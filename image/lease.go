package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
)

// leaseTime is longer than any pull. A lease that a kill leaves is found by its
// labels before.
const leaseTime = 24 * time.Hour

// Lease keeps what is under way from the garbage collector. It is released, as
// Release does it, on a context that outlives a cancelled one.
func (s Store) Lease(ctx context.Context) (context.Context, func(keep bool) error, error) {
	l, err := s.Client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime), leases.WithLabels(s.LeaseLabels))
	if err != nil {
		return nil, nil, fmt.Errorf("create lease: %w", err)
	}
	release := func(keep bool) error {
		const patience = 30 * time.Second
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return s.Release(ctx, l, keep)
	}
	return leases.WithLease(ctx, l.ID), release, nil
}

// Release deletes the lease of a pull that has ended, and with it all that no
// image holds. To keep is parts of blobs: a later pull goes on from them, and
// containerd removes them after a day.
func (s Store) Release(ctx context.Context, l leases.Lease, keep bool) error {
	manager := s.Client.LeasesService()
	resources, err := manager.ListResources(ctx, l)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read lease %s: %w", l.ID, err)
	}
	var errs []error
	for _, r := range resources {
		if keep && r.Type == "ingests" {
			errs = append(errs, s.unlease(ctx, r.ID))
		}
	}
	if err := manager.Delete(ctx, l, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("delete lease %s: %w", l.ID, err))
	}
	return errors.Join(errs...)
}

// unlease opens a part once more without a lease, for which containerd gives it
// a day. One that another pull writes to is that pull's.
func (s Store) unlease(ctx context.Context, ref string) error {
	status, err := s.Client.ContentStore().Status(ctx, ref)
	if errdefs.IsNotFound(err) || err == nil && status.Offset == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the part %s: %w", ref, err)
	}
	const patience = 2 * time.Second // the stream that wrote it may not have ended yet
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w, err := content.OpenWriter(ctx, s.Client.ContentStore(), content.WithRef(ref))
	if errdefs.IsUnavailable(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep the part %s: %w", ref, err)
	}
	return w.Close()
}
