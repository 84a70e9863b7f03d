package cmd

import (
	"errors"
	"path/filepath"
	"strings"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/workspace"
)

// openMounts opens what a plan shows of the host, as who asks. The caller calls
// shut, whatever happens.
func openMounts(plan *runtime.Plan, who invoker.User) (sources []*workspace.Source, shut func() error, err error) {
	shut = func() error {
		var errs []error
		for _, s := range sources {
			errs = append(errs, s.Top.Close())
		}
		return errors.Join(errs...)
	}
	for _, m := range plan.Mounts {
		path := m.Source
		if below, ok := strings.CutPrefix(path, "~/"); ok {
			path = filepath.Join(who.Home, below)
		}
		s, err := runtime.OpenMount(m, workspace.Source{Path: path, User: who})
		if err != nil {
			return sources, shut, err
		}
		sources = append(sources, s)
	}
	return sources, shut, nil
}
