package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
)

// holdTime is longer than anybody thinks about a question. It ends the hold of
// one who was killed where no gc does: those find it among the leases of pulls.
const holdTime = 24 * time.Hour

// hold keeps a snapshot until its release, whoever removes it meanwhile. It does
// not say that the snapshot is there.
func (h *Host) hold(ctx context.Context, snapshot string) (release func() error, err error) {
	labels, err := pullLabels()
	if err != nil {
		return nil, err
	}
	service := h.Client.LeasesService()
	lease := leases.Lease{ID: "carboy.hold." + rand.Text()}
	release = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTime)
		defer cancel()
		return h.Images.Release(ctx, lease, false)
	}
	_, err = service.Create(ctx, leases.WithID(lease.ID), leases.WithExpiration(holdTime), leases.WithLabels(labels))
	if err == nil {
		err = service.AddResource(ctx, lease, leases.Resource{ID: snapshot, Type: "snapshots/" + h.Snapshotter})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold snapshot %s: %w", snapshot, err), release())
	}
	return release, nil
}
