package registry

import (
	"strconv"
	"strings"
)

// mostShown bounds what a registry can put on the terminal.
const mostShown = 1000

// Printable makes text that a registry chose safe to show: ASCII, no control
// characters, cut. Line ends of joined errors stay.
func Printable(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			quoted := strconv.QuoteToASCII(line)
			lines[i] = quoted[1 : len(quoted)-1]
		}
	}
	s = strings.Join(lines, "; ")
	if len(s) > mostShown {
		s = s[:mostShown-3] + "..."
	}
	return s
}

// printable keeps the classes of an error and makes its text safe.
type printable struct{ error }

func (p printable) Error() string { return Printable(p.error.Error()) }
func (p printable) Unwrap() error { return p.error }
