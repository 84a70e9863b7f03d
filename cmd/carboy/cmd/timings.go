package cmd

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"carboy/runtime"
)

// traceVariable names a file descriptor that gets a line at the begin and end
// of every step of a bring-up and tear-down.
const traceVariable = "CARBOY_TRACE_FD"

func newTrace(start time.Time) (*runtime.Trace, error) {
	t := &runtime.Trace{Start: start}
	out, err := inheritedFile(traceVariable)
	if out != nil {
		t.Out = out
	}
	return t, err
}

func printTimings(w io.Writer, steps []runtime.Step) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "begin\ttook\t  step")
	for _, s := range steps {
		_, _ = fmt.Fprintf(t, "%s\t%s\t  %s\n", millis(s.Begin), millis(s.Took), s.Name)
	}
	_ = t.Flush() // stderr may be closed
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
