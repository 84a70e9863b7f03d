package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/changes"
	"carboy/runtime/invoker"
)

func newDiff(s *settings) *cobra.Command {
	var patch, asJSON bool
	c := &cobra.Command{
		Use:   "diff [--patch|--json] NAME",
		Short: "Show what an agent changed in its workspace",
		Long: `Show what the agent of a bottle, live or ended, changed in its workspace: A for
added, M for modified, D for deleted. Changes are kept for a week after the
bottle's end; "carboy apply" writes them to the project, "carboy rm" drops them.`,
		Args: exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			if patch && asJSON {
				return fmt.Errorf("--patch and --json exclude each other: %w", errdefs.ErrInvalidArgument)
			}
			return withSides(c, s, args[0], func(ctx context.Context, _ *runtime.Host, _ runtime.Result, sides changes.Sides) error {
				board := awaiting(s.quiet, func() string { return "looking for changes" })
				defer board.Close()
				patched, out := besides(board, safeFor(c.OutOrStdout())), besides(board, c.OutOrStdout())
				switch {
				case asJSON:
					all, err := sides.List(ctx)
					return errors.Join(err, printJSON(out, all))
				case patch:
					return sides.Patch(ctx, patched)
				default:
					return sides.Walk(ctx, func(c changes.Change) error { return printChange(out, c) })
				}
			})
		},
	}
	c.Flags().BoolVarP(&patch, "patch", "p", false, "print a unified diff of text files")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// withSides opens the result of a bottle.
func withSides(c *cobra.Command, s *settings, name string, f func(context.Context, *runtime.Host, runtime.Result, changes.Sides) error) error {
	return withHost(c, s, func(ctx context.Context, h *runtime.Host) (err error) {
		r, err := h.Result(ctx, name)
		if err != nil {
			return err
		}
		who, err := invoker.Current()
		if err != nil {
			return err
		}
		sides, err := h.Sides(ctx, r, who)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sides.Close()) }()
		return f(ctx, h, r, sides)
	})
}

func printChange(w io.Writer, c changes.Change) error {
	path := c.Path
	if c.Type == "directory" {
		path += "/"
	}
	_, err := fmt.Fprintf(w, "%s %s\n", c.Kind, quotePath(path))
	return err
}

// quotePath makes a path that an agent chose safe for a terminal, and leaves it
// on one line.
func quotePath(path string) string {
	if utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool { return !strconv.IsPrint(r) || r == '"' || r == '\\' }) {
		return path
	}
	return strconv.Quote(path)
}

// safeFor is w, made safe where it is a terminal: a patch is to be a patch
// everywhere else.
func safeFor(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		return safeWriter{w}
	}
	return w
}

type safeWriter struct{ w io.Writer }

func (s safeWriter) Write(p []byte) (int, error) {
	text := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || strconv.IsPrint(r) && r != utf8.RuneError {
			return r
		}
		return '\uFFFD'
	}, string(p))
	if _, err := io.WriteString(s.w, text); err != nil {
		return 0, err
	}
	return len(p), nil
}
