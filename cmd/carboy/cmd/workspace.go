package cmd

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
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
	var asJSON bool
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List copies of projects and results of bottles",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				kept, err := h.Kept(ctx)
				if asJSON {
					return errors.Join(printJSON(c.OutOrStdout(), kept), err)
				}
				t := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
				_, _ = fmt.Fprintln(t, "KIND\tBOTTLE\tINSTANCE\tSIZE\tAGE\tDIRECTORY") // Flush tells
				for _, x := range kept.Results {
					_, _ = fmt.Fprintf(t, "result\t%s\t%s\t%s\t%s\t%s\n", x.Name, x.Instance, units.BytesSize(float64(x.Size)), units.HumanDuration(time.Since(x.Started)), quotePath(x.Directory))
				}
				for _, x := range kept.Copies {
					_, _ = fmt.Fprintf(t, "copy\t-\t-\t%s\t%s\t%s\n", units.BytesSize(float64(x.Size)), units.HumanDuration(time.Since(x.Created)), quotePath(x.Directory))
				}
				return errors.Join(t.Flush(), err)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newWorkspacePrune(s *settings) *cobra.Command {
	var results bool
	c := &cobra.Command{
		Use:   "prune [--results]",
		Short: "Remove the copies of projects that no bottle is about to use",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				swept, err := h.Prune(ctx, results)
				return errors.Join(printSwept(c.OutOrStdout(), swept, false), err)
			})
		},
	}
	c.Flags().BoolVar(&results, "results", false, "also what the agents of ended bottles wrote")
	return c
}
