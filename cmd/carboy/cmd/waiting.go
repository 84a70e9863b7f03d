package cmd

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"

	"github.com/containerd/console"
	"github.com/containerd/log"
	"github.com/spf13/cobra"

	"carboy/image/progress"
	"carboy/runtime"
	"carboy/runtime/proxy/policy"
)

// awaiting says on the terminal what is waited for, if that takes longer than half
// a second. The caller closes the board before the terminal gets anything else. A
// log that says more would be mixed with it.
func awaiting(quiet bool, doing func() string) *progress.Board {
	width := drawable(os.Stderr)
	if quiet || width == nil || log.GetLevel() > log.WarnLevel {
		return nil
	}
	return progress.New(os.Stderr, width, func() string { return policy.Visible(doing()) })
}

// drawable is a terminal's width in cells, nil where lines cannot be redrawn.
func drawable(f *os.File) func() int {
	c, err := console.ConsoleFromFile(f)
	if err != nil || !isTerminal(f) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return func() int {
		size, err := c.Size()
		if err != nil {
			return 0
		}
		return int(size.Width)
	}
}

// stepsOf adds the step that a bring-up or a tear-down is at.
func stepsOf(t *runtime.Trace, doing string) func() string {
	return func() string { return strings.TrimSuffix(doing+": "+t.Current(), ": ") }
}

// awaited is withHost for what may take long. What f prints goes to the command's
// output.
func awaited(c *cobra.Command, s *settings, doing string, f func(context.Context, *runtime.Host) error) error {
	return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
		board := awaiting(s.quiet, func() string { return doing })
		defer board.Close()
		c.SetOut(besides(board, c.OutOrStdout()))
		return f(ctx, h)
	})
}

// besides is an output that may be on the terminal of a board.
func besides(board *progress.Board, w io.Writer) io.Writer {
	if board == nil || !isTerminal(os.Stdout) {
		return w
	}
	return above{w, board}
}

type above struct {
	io.Writer
	board *progress.Board
}

func (a above) Write(p []byte) (n int, err error) {
	if !bytes.HasSuffix(p, []byte("\n")) {
		a.board.Close() // it would be drawn into that line
	}
	a.board.Above(func() { n, err = a.Writer.Write(p) })
	return n, err
}
