package doctor

import (
	"fmt"
	"io"
	"strings"
)

// Report is what an examination came to; as JSON it is a contract with its
// readers.
type Report struct {
	Build  string    `json:"build"`
	Level  Level     `json:"level"` // the worst of all
	Checks []Finding `json:"checks"`
	Fixed  []string  `json:"fixed,omitempty"`
}

// Status is the exit code: 0 all is well, 1 warnings, 2 failures.
func (r Report) Status() int {
	return map[Level]int{OK: 0, Warn: 1, Fail: 2}[r.Level]
}

var colours = map[Level]string{OK: "32", Warn: "33", Fail: "31"}

// Print writes a table, in colour where that is wanted. What to do about a
// finding stands below it.
func (r Report) Print(w io.Writer, colour bool) error {
	width := 0
	for _, f := range r.Checks {
		width = max(width, len(f.Check))
	}
	var text strings.Builder
	for _, f := range r.Checks {
		level := fmt.Sprintf("%-4s", f.Level)
		if colour {
			level = "\x1b[" + colours[f.Level] + "m" + level + "\x1b[0m"
		}
		fmt.Fprintf(&text, "%s  %-*s  %s\n", level, width, f.Check, f.Found)
		if f.Out != "" {
			fmt.Fprintf(&text, "%4s  %*s  -> %s\n", "", width, "", f.Out)
		}
	}
	for _, what := range r.Fixed {
		fmt.Fprintf(&text, "fixed: %s\n", what)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
