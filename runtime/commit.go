package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"carboy/image"
)

// Commit makes an image of the root of a running bottle as it stands. Its agent
// is paused meanwhile. What is mounted there is not in it, such as the workspace
// and secrets.
func (h *Host) Commit(ctx context.Context, name, ref, comment string) (_ image.Image, err error) {
	r, err := h.Find(ctx, name)
	if err != nil {
		return image.Image{}, err
	}
	if state := h.state(r); state != StateRunning {
		return image.Image{}, fmt.Errorf("bottle %s is %s: only a running one has a root to make an image of: %w", name, state, errdefs.ErrFailedPrecondition)
	}
	if r.Runtime != "runc" {
		return image.Image{}, fmt.Errorf("bottle %s runs under %s, which keeps what an agent writes to itself: start it with --runtime runc to make an image of it: %w", name, r.Runtime, errdefs.ErrFailedPrecondition)
	}
	resume, err := h.pauseAgent(ctx, r)
	if err != nil {
		return image.Image{}, err
	}
	defer func() { err = errors.Join(err, resume()) }()
	change := image.Change{Base: r.Image, Digest: r.Digest, Comment: comment}
	l, err := h.snapshotLayers(ctx, r.agentID())
	if err != nil {
		return image.Image{}, err
	}
	// Not the snapshot's own mounts: it is mounted already, and a second mount
	// of what is written is undefined. These only read.
	change.Lower = readOnly(l.lowers)
	change.Upper = readOnly(append([]string{l.upper}, l.lowers...))
	return h.Images.Commit(ctx, ref, change)
}

func readOnly(dirs []string) []mount.Mount {
	if len(dirs) == 1 {
		return []mount.Mount{{Type: "bind", Source: dirs[0], Options: []string{"ro", "rbind"}}}
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"ro", "lowerdir=" + strings.Join(dirs, ":")}}}
}

// pauseAgent stops all of the agent's processes until resume. When we are killed
// before, the next removal of the bottle goes on with them.
func (h *Host) pauseAgent(ctx context.Context, r Record) (resume func() error, err error) {
	container, err := h.Client.LoadContainer(ctx, r.agentID())
	if err != nil {
		return nil, fmt.Errorf("bottle %s has ended: %w", r.Name, err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("bottle %s has ended: %w", r.Name, err)
	}
	if err := task.Pause(ctx); err != nil {
		return nil, fmt.Errorf("pause the agent: %w", err)
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTime)
		defer cancel()
		if err := task.Resume(ctx); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("resume the agent: %w", err)
		}
		return nil
	}, nil
}

// thaw lets a paused task end.
func thaw(ctx context.Context, task containerd.Task) error {
	status, err := task.Status(ctx)
	if err != nil || status.Status != containerd.Paused && status.Status != containerd.Pausing {
		return nil //nolint:nilerr // what cannot be asked may have gone
	}
	return task.Resume(ctx)
}
