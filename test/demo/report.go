package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// page is the demo's output. Its first failure stays.
type page struct {
	out    io.Writer
	colour bool
	err    error
}

const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

func newPage(f *os.File) *page {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &page{out: f, colour: err == nil && os.Getenv("NO_COLOR") == ""}
}

func (p *page) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format, args...)
	}
}

func (p *page) title(s string) { p.printf("\n%s\n", p.paint(bold, s)) }

// quote shows the output of a program, set off from our own.
func (p *page) quote(s string) {
	for line := range strings.Lines(s) {
		p.printf("  %s\n", p.paint(faint, strings.TrimRight(line, "\n")))
	}
}

func (p *page) paint(colour, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// table has a line for each attempt: what arrived without a bottle, and what
// from the bottle.
func (p *page) table(host, bottle []outcome) {
	widest := 0
	for _, a := range attempts {
		widest = max(widest, utf8.RuneCountInString(a.what))
	}
	p.printf("  %-*s   %-16s %s\n", widest, "", "from the host", "from the bottle")
	for i, a := range attempts {
		colour := red
		if bottle[i].right(a) {
			colour = green
		}
		p.printf("  %-*s   %-16s %s\n", widest, a.what, host[i], p.paint(colour, bottle[i].String()))
	}
}

func (o outcome) String() string {
	switch {
	case o.arrived > 0 && o.claimed:
		return "arrived"
	case o.arrived > 0:
		return "arrived, without an answer"
	case o.claimed:
		return "answered, and not by the target"
	}
	return "stopped"
}
