package cmd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/initproto"
	"carboy/runtime/supervise"
)

func newExec(s *settings) *cobra.Command {
	var tty, stdin, user, dir string
	var env []string
	c := &cobra.Command{
		Use:   "exec [flags] NAME [--] COMMAND ARG...",
		Short: "Run a further command in a running bottle",
		Long: `Run a command in the agent's container, with the agent's user, environment and
seal unless flags say otherwise, and exit with its exit code. It ends with
carboy's connection.`,
		RunE: func(c *cobra.Command, args []string) error {
			name, command, err := execArgs(c, args)
			if err != nil {
				return err
			}
			term := callersTerminal()
			spec := initproto.Spec{Args: command, User: user, Dir: dir, Size: term.size()}
			if spec.TTY, spec.Stdin, err = term.streams(cmp.Or(tty, "false"), cmp.Or(stdin, "false")); err != nil {
				return err
			}
			if spec.TTY {
				spec.Env = []string{"TERM=" + termVariable()}
			}
			for _, e := range env {
				name, value, err := runtime.Variable(e, s.lookup)
				if err != nil {
					return err
				}
				spec.Env = append(spec.Env, name+"="+value)
				if !strings.Contains(e, "=") {
					spec.Forwarded = append(spec.Forwarded, name)
				}
			}
			return failedUnlessUsage(execIn(c.Context(), s, name, spec, term))
		},
	}
	fl := c.Flags()
	fl.SetInterspersed(false) // those after the bottle are the command's
	tri(fl.VarPF, &tty, "tty", "t", "give the command a terminal")
	tri(fl.VarPF, &stdin, "interactive", "i", "pass on standard input")
	fl.StringVarP(&user, "user", "u", "", "user in the image (default the agent's)")
	fl.StringVarP(&dir, "workdir", "w", "", "working directory (default the agent's)")
	fl.StringArrayVarP(&env, "env", "e", nil, "environment variable NAME=VALUE, or NAME to forward it (repeatable)")
	return c
}

// execArgs takes the command with and without the dashes.
func execArgs(c *cobra.Command, args []string) (name string, command []string, err error) {
	if len(args) > 1 && args[1] == "--" {
		args = slices.Delete(args, 1, 2)
	}
	switch {
	case len(args) < 2:
		return "", nil, fmt.Errorf("give a bottle and a command: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
	case strings.HasPrefix(args[1], "-"):
		return "", nil, fmt.Errorf("flags go before the bottle: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
	default:
		return args[0], args[1:], nil
	}
}

func execIn(ctx context.Context, s *settings, name string, spec initproto.Spec, term terminal) error {
	host, err := s.host(ctx)
	if err != nil {
		return err
	}
	defer host.Close()
	exit, err := runIn(host.Context(ctx), host, name, spec, term)
	if err != nil {
		return err
	}
	return ended(exit)
}

func runIn(ctx context.Context, host *runtime.Host, name string, spec initproto.Spec, term terminal) (initproto.Exit, error) {
	client, conn, err := host.Dial(ctx, name)
	if err != nil {
		return initproto.Exit{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streams, restore, err := term.connect(spec.TTY, spec.Stdin, cancel)
	if err != nil {
		return initproto.Exit{}, err
	}
	defer restore()
	process, err := client.Start(spec, streams)
	if err != nil {
		return initproto.Exit{}, err
	}
	live, end := context.WithCancel(ctx)
	defer end()
	if spec.TTY {
		go term.follow(live, process.Resize)
	}
	select {
	case <-process.Ended():
	case <-ctx.Done():
		if err := runtime.Stop(process, runtime.StopTime); err != nil {
			return initproto.Exit{}, err
		}
	}
	return supervise.LastWords(ctx, process)
}
