package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/workspace"
)

// sources are what a plan shows of the host, opened as who asks.
type sources []*os.File

// open fills in what a bring-up takes from the host. The caller calls shut,
// whatever happens.
func (s *sources) open(plan *runtime.Plan, who invoker.User, o *runtime.UpOptions) (err error) {
	if plan.Proxy.Binary != "" {
		if o.Binary, err = who.RealPath(plan.Proxy.Binary); err != nil {
			return fmt.Errorf("proxy binary: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	if w := plan.Workspace; w != nil {
		top, err := who.OpenDir(w.Directory)
		if err != nil {
			return fmt.Errorf("workspace: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		*s = append(*s, top)
		o.Source = &workspace.Source{Path: w.Directory, Top: top, User: who}
	}
	for _, m := range plan.Mounts {
		path := m.Source
		if below, ok := strings.CutPrefix(path, "~/"); ok {
			path = filepath.Join(who.Home, below)
		}
		source, err := runtime.OpenMount(m, workspace.Source{Path: path, User: who})
		if err != nil {
			return err
		}
		*s = append(*s, source.Top)
		o.Mounts = append(o.Mounts, source)
	}
	return nil
}

func (s *sources) shut() {
	for _, f := range *s {
		_ = f.Close() // only looked at
	}
}
