package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"

	"github.com/containerd/console"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

// terminal is what carboy's own standard streams are connected to.
type terminal struct {
	in, out bool
	tty     console.Console // nil without one
}

func callersTerminal() terminal {
	t := terminal{in: isTerminal(os.Stdin), out: isTerminal(os.Stdout)}
	for _, f := range []*os.File{os.Stdin, os.Stdout} {
		if c, err := console.ConsoleFromFile(f); err == nil && t.tty == nil {
			t.tty = c
		}
	}
	return t
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// raw passes every key to the command, Ctrl-C too. The caller restores the
// terminal, whatever happens.
func (t terminal) raw(want bool) (restore func(), err error) {
	if !want || !t.in {
		return func() {}, nil
	}
	restore = func() { _ = t.tty.Reset() } // the terminal may have gone
	if err := errors.Join(t.tty.SetRaw(), t.passOutput()); err != nil {
		restore()
		return nil, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	return restore, nil
}

// passOutput turns off the translation of output, which SetRaw leaves on: the
// command's own terminal has done it.
func (t terminal) passOutput() error {
	state, err := unix.IoctlGetTermios(int(t.tty.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	state.Oflag &^= unix.OPOST
	return unix.IoctlSetTermios(int(t.tty.Fd()), unix.TCSETS, state)
}

// connect gives a command carboy's own streams. gone is called when nobody
// reads its output any more, as after `carboy run ... | head -1`. The caller
// restores the terminal, whatever happens.
func (t terminal) connect(tty, stdin bool, gone func()) (s initproto.Streams, restore func(), err error) {
	// Without this a write would end carboy at once, and leave the bottle
	// behind; ignoring the signal instead would be inherited.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	s.Stdout, s.Stderr = viewer{os.Stdout, gone}, viewer{os.Stderr, gone}
	if stdin {
		s.Stdin = os.Stdin
	}
	restore, err = t.raw(tty && stdin)
	return s, restore, err
}

// viewer is an output whose reader may go away.
type viewer struct {
	io.Writer
	gone func()
}

func (v viewer) Write(p []byte) (int, error) {
	n, err := v.Writer.Write(p)
	if errors.Is(err, unix.EPIPE) {
		v.gone()
	}
	return n, err
}

// termVariable is the kind of terminal, docker's guess where there is none.
func termVariable() string { return cmp.Or(os.Getenv("TERM"), "xterm") }

func (t terminal) size() initproto.Size {
	if t.tty == nil {
		return initproto.Size{Rows: 24, Cols: 80}
	}
	s, err := t.tty.Size()
	if err != nil {
		return initproto.Size{Rows: 24, Cols: 80}
	}
	return initproto.Size{Rows: s.Height, Cols: s.Width}
}

// follow tells the command each new size until ctx ends.
func (t terminal) follow(ctx context.Context, resize func(initproto.Size) error) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	defer signal.Stop(changed)
	changed <- unix.SIGWINCH // it may have changed before we listened
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if resize(t.size()) != nil {
				return
			}
		}
	}
}

// newline is what a message ends in while the terminal may be raw.
func (t terminal) newline(tty bool) string {
	if tty && t.in {
		return "\r\n"
	}
	return "\n"
}

// triState is a boolean flag that knows whether it was given.
type triState struct{ value *string }

func (t triState) String() string {
	if t.value == nil {
		return ""
	}
	return *t.value
}
func (t triState) Type() string { return "bool" }
func (t triState) Set(s string) error {
	if _, err := strconv.ParseBool(s); err != nil {
		return err
	}
	*t.value = s
	return nil
}

func tri(register func(pflag.Value, string, string, string) *pflag.Flag, value *string, name, short, usage string) {
	register(triState{value}, name, short, usage).NoOptDefVal = "true"
}

// streams decides on -t and -i: as asked, else as the caller's streams are.
func (t terminal) streams(tty, stdin string) (wantTTY, wantStdin bool, err error) {
	wantTTY, wantStdin = t.in && t.out, true
	if tty != "" {
		wantTTY, _ = strconv.ParseBool(tty) // checked by Set
	}
	if stdin != "" {
		wantStdin, _ = strconv.ParseBool(stdin)
	}
	if wantTTY && wantStdin && tty != "" && !t.in {
		return false, false, fmt.Errorf("--tty: standard input is not a terminal; -i=false gives the command a terminal without input: %w", errdefs.ErrInvalidArgument)
	}
	return wantTTY, wantStdin, nil
}
