package cmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/changes"
	"carboy/runtime/invoker"
)

func newApply(s *settings) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "apply [-y] NAME [DIR]",
		Short: "Write what an agent changed to the project",
		Long: `Write what the agent of a bottle, live or ended, changed in its workspace to the
project it was a copy of, or to DIR, with the rights of the user who calls. What
was changed there as well since the bottle began is a conflict: then nothing is
written. Left out are hooks and settings of git repositories, with which git would
run what the agent wrote, and what makes a directory without .git such a
repository. Named apart are files that other programs take commands from, such as
.envrc and .vscode.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return fmt.Errorf("give a bottle, and perhaps a directory: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return withSides(c, s, args[0], func(ctx context.Context, _ *runtime.Host, r runtime.Result, sides changes.Sides) error {
				who, err := invoker.Current()
				if err != nil {
					return err
				}
				dir := r.Directory
				if len(args) > 1 {
					dir = args[1]
				}
				top, err := who.OpenDir(dir)
				if err != nil {
					return err
				}
				defer top.Close()
				return apply(ctx, c.ErrOrStderr(), sides, changes.Target{Top: top, User: who, Since: r.Since()}, cmp.Or(dir, "."), yes)
			})
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func apply(ctx context.Context, w io.Writer, sides changes.Sides, t changes.Target, dir string, yes bool) error {
	board := awaiting(false, func() string { return "comparing with " + dir })
	plan, err := sides.Plan(ctx, t)
	board.Close()
	if err != nil {
		return err
	}
	if len(plan.Conflicts) > 0 {
		return fmt.Errorf("nothing is written: these were changed in %s too, or cannot be reached without a link:\n%s: %w",
			quotePath(dir), strings.TrimSuffix(lines(plan.Conflicts), "\n"), errdefs.ErrFailedPrecondition)
	}
	if len(plan.Withheld) > 0 {
		_, _ = fmt.Fprintf(w, "left out, as programs of this host may run it, or as it is no file:\n%s", lines(plan.Withheld))
	}
	if len(plan.Todo) == 0 {
		_, err := fmt.Fprintln(w, "nothing to write")
		return err
	}
	if _, err := fmt.Fprintf(w, "%sto %s, as %s\n", question(plan.Todo), quotePath(dir), t.User.Name); err != nil {
		return err
	}
	if !yes {
		if err := ask(ctx, "write these changes?", "not done"); err != nil {
			return err
		}
	}
	defer awaiting(false, func() string { return "writing to " + dir }).Close()
	return sides.Apply(ctx, t, plan.Todo)
}

// question has what programs take commands from at its end, where it is seen.
func question(todo []changes.Change) string {
	var plain, commands []changes.Change
	for _, c := range todo {
		if c.Commands() {
			commands = append(commands, c)
		} else {
			plain = append(plain, c)
		}
	}
	if len(commands) == 0 {
		return lines(plain)
	}
	return lines(plain) + "programs of yours take commands from these:\n" + lines(commands)
}

func lines(all []changes.Change) string {
	var b strings.Builder
	for _, c := range all {
		_ = printChange(&b, c) // never fails
	}
	return b.String()
}
