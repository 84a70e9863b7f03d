package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/console"
	"github.com/containerd/errdefs"

	"carboy/runtime"
	"carboy/runtime/manifest"
	"carboy/runtime/proxy/policy"
)

// checkSecrets tells before anything is made that nobody can be asked.
func checkSecrets(plan *runtime.Plan) error {
	for _, s := range plan.Pending() {
		if s.From.Kind != manifest.Prompted {
			continue
		}
		tty, err := openSecretTerminal(s.Name)
		if err != nil {
			return err
		}
		return tty.Close()
	}
	return nil
}

// openSecretTerminal is where secrets are typed: stdin may be the agent's. The
// caller closes it.
func openSecretTerminal(name string) (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("there is no terminal to ask for %s on: give it by --secret %s=FILE, %s=fd:NUMBER or %s=credential:NAME: %w", name, name, name, name, errdefs.ErrInvalidArgument)
	}
	return tty, nil
}

// askSecret reads a line that the terminal does not show. The terminal is as
// before whatever ends it, a signal too.
func askSecret(ctx context.Context, name, question string) (_ []byte, err error) {
	tty, err := openSecretTerminal(name)
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	c, err := console.ConsoleFromFile(tty)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	if err := c.DisableEcho(); err != nil {
		return nil, fmt.Errorf("stop the terminal's echo: %w", err)
	}
	defer func() {
		_, _ = fmt.Fprintln(tty) // the newline that was typed was not shown
		err = errors.Join(err, c.Reset())
	}()
	if _, err := fmt.Fprint(tty, secretQuestion(name, question)); err != nil {
		return nil, err
	}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(tty).ReadString('\n') // no answer is none
		line <- strings.TrimRight(text, "\r\n")
	}()
	select {
	case text := <-line:
		if text == "" {
			return nil, fmt.Errorf("nothing was typed: %w", errdefs.ErrInvalidArgument)
		}
		return []byte(text), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// secretQuestion shows what a manifest wrote without what would disturb the
// terminal.
func secretQuestion(name, question string) string {
	if question == "" {
		return name + " (not shown): "
	}
	return name + ", " + policy.Escape(question) + " (not shown): "
}
