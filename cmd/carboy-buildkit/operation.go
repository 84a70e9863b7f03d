package main

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
)

// ResolveOp refuses a RUN with a secret in its environment: containerd writes
// the environment of a container to its database, on a disk.
func (w *aliasWorker) ResolveOp(v solver.Vertex, s frontend.FrontendLLBBridge, sm *session.Manager, p worker.ProxyOpt) (solver.Op, error) {
	if op, ok := v.Sys().(*pb.Op); ok {
		for _, e := range op.GetExec().GetSecretenv() {
			return nil, fmt.Errorf("the secret %s as variable %s would be written to containerd's database: leave env= out, and read the file /run/secrets/%s in RUN: %w",
				e.ID, e.Name, e.ID, errdefs.ErrInvalidArgument)
		}
	}
	return w.Worker.ResolveOp(v, s, sm, p)
}
