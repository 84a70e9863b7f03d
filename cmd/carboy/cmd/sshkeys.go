package cmd

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/term"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/sshagent"
)

// sshKeys opens the keys that a plan lends, with the rights of who asks.
func sshKeys(ctx context.Context, who invoker.User, hosts []runtime.SSHPlan) ([]sshagent.Key, error) {
	source := sshagent.Source{User: who, Socket: os.Getenv("SSH_AUTH_SOCK"), Passphrase: func(file string) ([]byte, error) {
		return askSecret(ctx, "passphrase of "+quote(file)+": ")
	}}
	opened := map[string]sshagent.Key{}
	var keys []sshagent.Key
	for _, h := range hosts {
		key, ok := opened[h.Key]
		if !ok {
			var err error
			if key, err = source.Open(h.Key); err != nil {
				return nil, fmt.Errorf("ssh host %s: %w: %w", h.Host, err, errdefs.ErrInvalidArgument)
			}
			opened[h.Key] = key
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// askSecret reads a line from the terminal without showing it.
func askSecret(ctx context.Context, question string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("it has a passphrase, and there is no terminal to ask for it on (nor for a bottle in the background): put the key in an ssh-agent and write `key: agent`: %w", errdefs.ErrInvalidArgument)
	}
	defer tty.Close()
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprint(tty, question); err != nil {
		return nil, err
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	defer fmt.Fprintln(tty)
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return nil, cmp.Or(term.Restore(fd, before), context.Cause(ctx))
	}
}
