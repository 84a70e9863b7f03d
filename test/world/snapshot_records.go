package world

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// records lists the leases, containers, tasks and snapshots of every containerd
// namespace. Images and content are not a bottle's. One that is not running has
// none that could be read.
func (c *Containerd) records(ctx context.Context) (lines []string, err error) {
	if c.Pid() == 0 {
		return nil, nil
	}
	client, err := c.Client()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	spaces, err := client.NamespaceService().List(ctx)
	if err != nil {
		return nil, err
	}
	for _, ns := range spaces {
		in, err := recordsOf(namespaces.WithNamespace(ctx, ns), client)
		if err != nil {
			return nil, fmt.Errorf("namespace %s: %w", ns, err)
		}
		for _, l := range in {
			lines = append(lines, ns+" "+l)
		}
	}
	return lines, nil
}

func recordsOf(ctx context.Context, client *containerd.Client) (lines []string, err error) {
	leases, err := client.LeasesService().List(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		lines = append(lines, "lease "+l.ID)
	}
	containers, err := client.ContainerService().List(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range containers {
		lines = append(lines, "container "+c.ID)
	}
	running, err := client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, err
	}
	for _, t := range running.Tasks {
		lines = append(lines, fmt.Sprintf("task %s %s", t.ID, t.Status))
	}
	err = client.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		lines = append(lines, fmt.Sprintf("snapshot %s %s on %q", i.Kind, i.Name, i.Parent))
		return nil
	})
	if errdefs.IsNotFound(err) {
		err = nil
	}
	return lines, err
}
