package cmd

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"carboy/runtime"
)

func newWorkspace(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "workspace",
		Short: "List and remove what is kept of projects",
		Long: `A start with --workspace keeps the copy that it made of the project, so that the
next has to copy what has changed only, and what the agent wrote over it. Of several
results of one bottle's name the last is meant, unless INSTANCE is given.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newWorkspaceLs(s), newWorkspacePrune(s))
	return c
}

func newWorkspaceLs(s *settings) *cobra.Command {
	out := keptTable()
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List copies of projects and results of bottles",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return awaited(c, s, "measuring copies and results", func(ctx context.Context, h *runtime.Host) error {
				kept, err := h.Kept(ctx)
				if out.asJSON { // which has more of each kind
					return errors.Join(printJSON(c.OutOrStdout(), kept), err)
				}
				return errors.Join(out.print(c.OutOrStdout(), viewKept(kept)), err)
			})
		},
	}
	out.register(c)
	return c
}

// keptView is a copy of a project or a result of a bottle.
type keptView struct {
	Kind      string    `json:"kind"` // result or copy
	Bottle    string    `json:"bottle,omitempty"`
	Instance  string    `json:"instance,omitempty"`
	Size      int64     `json:"size"` // in bytes
	Created   time.Time `json:"created"`
	Directory string    `json:"directory"`
}

func viewKept(k runtime.Kept) (all []keptView) {
	for _, r := range k.Results {
		all = append(all, keptView{"result", r.Name, r.Instance, r.Size, r.Started, r.Directory})
	}
	for _, t := range k.Copies {
		all = append(all, keptView{"copy", "", "", t.Size, t.Created, t.Directory})
	}
	return all
}

func keptTable() *table[keptView] {
	return &table[keptView]{
		head: []string{"KIND", "BOTTLE", "INSTANCE", "SIZE", "AGE", "DIRECTORY"},
		cells: func(v keptView) []string {
			return []string{v.Kind, cmp.Or(v.Bottle, "-"), cmp.Or(v.Instance, "-"), units.BytesSize(float64(v.Size)), units.HumanDuration(time.Since(v.Created)), v.Directory}
		},
		plain: func(v keptView) keptView {
			v.Directory = quotePath(v.Directory)
			return v
		},
	}
}

func newWorkspacePrune(s *settings) *cobra.Command {
	var results bool
	c := &cobra.Command{
		Use:   "prune [--results]",
		Short: "Remove the copies of projects that no bottle is about to use",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return awaited(c, s, "removing copies of projects", func(ctx context.Context, h *runtime.Host) error {
				swept, err := h.Prune(ctx, results)
				return errors.Join(printSwept(c.OutOrStdout(), swept, false), err)
			})
		},
	}
	c.Flags().BoolVar(&results, "results", false, "also what the agents of ended bottles wrote")
	return c
}
