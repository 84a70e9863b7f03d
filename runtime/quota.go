package runtime

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"

	"carboy/runtime/disk"
)

// longestUnmeasured bounds the time between two measures of what an agent wrote.
const longestUnmeasured = 30 * time.Second

// checkDisk measures what the agent wrote to its root and its workspace, with
// what has no name any more. It fails with errdefs.ErrResourceExhausted where
// that is more than it may, or cannot be measured.
func (b *Bottle) checkDisk(ctx context.Context) error {
	dirs, err := b.written(ctx)
	if err != nil {
		return fmt.Errorf("measure what the agent wrote: %w", err)
	}
	used := disk.Deleted(threadsOf(b.cgroup(b.agentID())))
	for _, dir := range dirs {
		size, err := disk.Tree(dir)
		if err != nil {
			return fmt.Errorf("what the agent wrote cannot be measured (--disk): it is ended: %w: %w", err, errdefs.ErrResourceExhausted)
		}
		used += size
	}
	if limit := b.plan.Limits.Disk; used > limit {
		return fmt.Errorf("the agent wrote %s, and may write %s (--disk): it is ended: %w",
			units.BytesSize(float64(used)), units.BytesSize(float64(limit)), errdefs.ErrResourceExhausted)
	}
	return nil
}

// written are the directories that take what the agent writes. They do not
// change, and containerd is asked for them once.
func (b *Bottle) written(ctx context.Context) ([]string, error) {
	if b.uppers != nil {
		return b.uppers, nil
	}
	ids := []string{b.agentID()}
	if b.Workspace != nil && b.Workspace.Mode != ModeBind {
		ids = append(ids, b.workspaceID())
	}
	var dirs []string
	for _, id := range ids {
		l, err := b.host.snapshotLayers(ctx, id)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, l.upper)
	}
	b.uppers = dirs
	return dirs, nil
}

func threadsOf(group string) []string {
	text, _, _, err := readGroup("pids", group, "tasks", "cgroup.threads")
	if err != nil {
		return nil // it has ended
	}
	return strings.Fields(string(text))
}
