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
		tty, err := openSecretTerminal(insteadOfAsking(s.Name))
		if err != nil {
			return err
		}
		return tty.Close()
	}
	return nil
}

// openSecretTerminal is where secrets are typed: stdin may be the agent's. What
// to do without one is the error. The caller closes it.
func openSecretTerminal(otherwise string) (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", otherwise, errdefs.ErrInvalidArgument)
	}
	return tty, nil
}

func insteadOfAsking(name string) string {
	return fmt.Sprintf("there is no terminal to ask for %s on: give it by --secret %s=FILE, %s=fd:NUMBER or %s=credential:NAME", name, name, name, name)
}

// askSecret asks, or says what to do where there is no terminal.
func askSecret(ctx context.Context, question, otherwise string) ([]byte, error) {
	tty, err := openSecretTerminal(otherwise)
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	return readSecret(ctx, tty, question)
}

// readSecret reads a line that the terminal does not show. The terminal is as
// before whatever ends it, a signal too.
func readSecret(ctx context.Context, tty *os.File, question string) (_ []byte, err error) {
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
	if _, err := fmt.Fprint(tty, question); err != nil {
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
