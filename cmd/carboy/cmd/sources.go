package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/sshagent"
	"carboy/runtime/workspace"
)

// sources are what a plan shows of the host, opened as who asks.
type sources []*os.File

// open fills in what a bring-up takes from the host, and tells all that is not
// there. An image is built as the imager. The caller calls shut, whatever happens.
func (s *sources) open(plan *runtime.Plan, who, imager invoker.User, build bool, o *runtime.UpOptions) error {
	errs := []error{openBinary(plan.Proxy.Binary, who, o), s.openWorkspace(plan.Workspace, who, o)}
	for _, m := range plan.Mounts {
		errs = append(errs, s.openMount(m, who, o))
	}
	for _, host := range plan.SSH {
		errs = append(errs, host.CheckKey(sshagent.Source{User: who}))
	}
	if plan.Build != nil && build {
		errs = append(errs, plan.Build.Check(imager))
	}
	return errors.Join(errs...)
}

func openBinary(path string, who invoker.User, o *runtime.UpOptions) (err error) {
	if path == "" {
		return nil
	}
	if o.Binary, err = who.RealPath(path); err != nil {
		return fmt.Errorf("proxy binary: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (s *sources) openWorkspace(w *runtime.WorkspacePlan, who invoker.User, o *runtime.UpOptions) error {
	if w == nil {
		return nil
	}
	top, err := who.OpenDir(w.Directory)
	if err != nil {
		return fmt.Errorf("workspace: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	*s = append(*s, top)
	o.Source = &workspace.Source{Path: w.Directory, Top: top, User: who}
	return nil
}

func (s *sources) openMount(m runtime.MountPlan, who invoker.User, o *runtime.UpOptions) error {
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
	return nil
}

func (s *sources) shut() {
	for _, f := range *s {
		_ = f.Close() // only looked at
	}
}
