package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/leases"
)

// hold keeps a snapshot until its release, whoever removes it meanwhile, or until
// gc finds that its holder was killed. It does not say that the snapshot is
// there.
func (h *Host) hold(ctx context.Context, snapshot string) (release func() error, err error) {
	leased, end, err := h.Images.Lease(ctx)
	if err != nil {
		return nil, fmt.Errorf("hold snapshot %s: %w", snapshot, err)
	}
	id, _ := leases.FromContext(leased)
	err = h.Client.LeasesService().AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: snapshot, Type: "snapshots/" + h.Snapshotter})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold snapshot %s: %w", snapshot, err), end(false))
	}
	return func() error { return end(false) }, nil
}
