package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"

	"carboy/runtime"
)

// confirm shows what is about to start, and asks unless told not to.
func (f *runFlags) confirm(ctx context.Context, p *runtime.Plan, o runtime.UpOptions, note string) error {
	text := "runc"
	if o.Runsc != "" {
		text = "runsc (" + o.Runsc + ")"
	}
	if note != "" {
		text += " (" + note + ")"
	}
	if err := describe(os.Stderr, p, text); err != nil {
		return err
	}
	if p.Live() {
		fmt.Fprintln(os.Stderr, "WARNING: the agent writes to files of the host themselves. Programs of yours may run what it leaves there: build files, scripts, settings of editors, repositories below it. Of .git (so it cannot commit), .claude, .envrc and the like, what is there is read-only; what is not there it can make.")
	}
	if f.yes {
		return nil
	}
	return ask(ctx, "start this bottle?", "not started")
}

// ask fails, with what follows from it, unless somebody at the terminal says yes.
func ask(ctx context.Context, question, otherwise string) error {
	tty, err := openTerminal()
	if err != nil {
		return err
	}
	defer tty.Close()
	if _, err := fmt.Fprint(tty, question+" [y/N] "); err != nil {
		return err
	}
	switch strings.ToLower(readLine(ctx, tty)) {
	case "y", "yes":
		return nil
	default:
		return errors.New(otherwise)
	}
}

// openTerminal is where the question is asked: stdin may be the agent's. The
// caller closes it.
func openTerminal() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	if !isTerminal(os.Stderr) { // the plan would not be seen
		return nil, errors.Join(errNoTerminal, tty.Close())
	}
	return tty, nil
}

var errNoTerminal = fmt.Errorf("there is no terminal to ask on: use --yes: %w", errdefs.ErrInvalidArgument)

// checkTerminal is for the time before anything is made.
func (f *runFlags) checkTerminal() error {
	if f.yes {
		return nil
	}
	tty, err := openTerminal()
	if err != nil {
		return err
	}
	return tty.Close()
}

// readLine returns an empty line when ctx ends first.
func readLine(ctx context.Context, r io.Reader) string {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(r).ReadString('\n') // no answer is a no
		line <- strings.TrimSpace(text)
	}()
	select {
	case text := <-line:
		return text
	case <-ctx.Done():
		return ""
	}
}
