package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/moby/term"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/initproto"
	"carboy/runtime/supervise"
)

// attachFlags are how much of a command a viewer takes.
type attachFlags struct {
	keys     string
	noStdin  bool
	readOnly bool
}

func newAttach(s *settings) *cobra.Command {
	f := &attachFlags{}
	c := &cobra.Command{
		Use:   "attach [flags] NAME",
		Short: "Connect this terminal to the command of a running bottle",
		Long: `Show what the agent's command says, from the end of what it has said on, and pass
on what is typed. Any number may look and type at once; one that reads slowly
misses some and delays nobody. The bottle goes on when this ends; when the
command ends, so does this, with its exit code.`,
		Args: exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			keys, err := term.ToBytes(f.keys)
			if err != nil {
				return fmt.Errorf("--detach-keys %q: %w: %w", f.keys, err, errdefs.ErrInvalidArgument)
			}
			return failedUnlessUsage(withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				return f.attach(ctx, h, args[0], keys)
			}))
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.keys, "detach-keys", "ctrl-p,ctrl-q", "keys that end this and not the command")
	fl.BoolVar(&f.noStdin, "no-stdin", false, "do not pass on standard input")
	fl.BoolVar(&f.readOnly, "read-only", false, "only look: no input, and the command's terminal keeps its size")
	return c
}

func (f *attachFlags) attach(ctx context.Context, h *runtime.Host, name string, keys []byte) error {
	client, conn, err := h.Dial(ctx, name)
	if err != nil {
		return err
	}
	defer conn.Close()
	about, err := h.History(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	terminal := callersTerminal()
	streams, restore, err := terminal.connect(about.TTY, !f.noStdin && !f.readOnly, cancel)
	if err != nil {
		return err
	}
	defer restore()
	if streams.Stdin != nil && about.TTY && terminal.in {
		streams.Stdin = detacher{term.NewEscapeProxy(os.Stdin, keys), cancel}
	}
	process, err := client.Attach(streams)
	if err != nil {
		return err
	}
	if about.TTY && terminal.tty != nil && !f.readOnly {
		go terminal.follow(ctx, process.Resize)
	}
	select {
	case <-process.Ended():
	case <-ctx.Done():
		restore()
		fmt.Fprintf(os.Stderr, "carboy: detached from %s, which goes on\n", name)
		return nil
	}
	exit, err := supervise.LastWords(ctx, process)
	if err != nil {
		return err
	}
	restore()
	return ended(exit)
}

// detacher ends the look when the keys for that are typed.
type detacher struct {
	io.Reader
	detach func()
}

func (d detacher) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	var escaped term.EscapeError
	if errors.As(err, &escaped) {
		d.detach()
	}
	return n, err
}

// attachQuietly connects to the agent's command without its streams. The caller
// closes the connection.
func attachQuietly(ctx context.Context, h *runtime.Host, name string) (*initproto.Process, io.Closer, error) {
	client, conn, err := h.Dial(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	process, err := client.Attach(initproto.Streams{})
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return process, conn, nil
}
