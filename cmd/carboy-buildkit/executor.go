package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	buildexecutor "github.com/moby/buildkit/executor"
	resources "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/identity"
)

// executor names the containers of RUN so that sweep knows them: BuildKit gives
// them neither label nor lease.
type executor struct {
	buildexecutor.Executor
	prefix string
}

// containerPrefix is the cache directory's own. BuildKit wants letters and
// digits only.
func containerPrefix(root string) string {
	sum := sha256.Sum256([]byte(root))
	return "carboybuild" + hex.EncodeToString(sum[:6])
}

func (e *executor) Run(ctx context.Context, id string, root buildexecutor.Mount, mounts []buildexecutor.Mount, p buildexecutor.ProcessInfo, started chan<- struct{}) (resources.Recorder, error) {
	if id == "" {
		id = identity.NewID()
	}
	return e.Executor.Run(ctx, e.prefix+id, root, mounts, p, started)
}

func (e *executor) Exec(ctx context.Context, id string, p buildexecutor.ProcessInfo) error {
	return e.Executor.Exec(ctx, e.prefix+id, p)
}
