package cmd

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/initproto"
)

func newExec(s *settings) *cobra.Command {
	var tty, stdin, user, dir string
	var env []string
	c := &cobra.Command{
		Use:   "exec [flags] NAME -- COMMAND ARG...",
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
			if stdin == "" {
				stdin = "false" // as docker exec: only -i reads the caller's input
			}
			if tty == "" {
				tty = "false"
			}
			if spec.TTY, spec.Stdin, err = term.streams(tty, stdin); err != nil {
				return err
			}
			for _, e := range env {
				if spec.Env, err = addVariable(spec.Env, e); err != nil {
					return err
				}
			}
			return execIn(c.Context(), s, name, spec, term)
		},
	}
	fl := c.Flags()
	tri(fl.VarPF, &tty, "tty", "t", "give the command a terminal")
	tri(fl.VarPF, &stdin, "interactive", "i", "pass on standard input")
	fl.StringVarP(&user, "user", "u", "", "user in the image (default the agent's)")
	fl.StringVarP(&dir, "workdir", "w", "", "working directory (default the agent's)")
	fl.StringArrayVarP(&env, "env", "e", nil, "environment variable NAME=VALUE, or NAME to forward it (repeatable)")
	return c
}

func execArgs(c *cobra.Command, args []string) (name string, command []string, err error) {
	// As docker, also without the dashes: carboy exec NAME COMMAND.
	if len(args) < 2 || c.ArgsLenAtDash() > 1 {
		return "", nil, fmt.Errorf("give a bottle and a command: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
	}
	return args[0], args[1:], nil
}

func addVariable(env []string, e string) ([]string, error) {
	name, value, given := cutVariable(e)
	if !given {
		return nil, fmt.Errorf("environment variable %s is not set and cannot be forwarded: %w", name, errdefs.ErrInvalidArgument)
	}
	if name == "" {
		return nil, fmt.Errorf("environment variable %q has no name: %w", e, errdefs.ErrInvalidArgument)
	}
	return append(env, name+"="+value), nil
}

func execIn(ctx context.Context, s *settings, name string, spec initproto.Spec, term terminal) error {
	host, err := s.host()
	if err != nil {
		return failed{err}
	}
	defer host.Close()
	exit, err := runIn(host.Context(ctx), host, name, spec, term)
	if err != nil {
		return failed{err}
	}
	if exit.Reason != "" {
		fmt.Fprintf(os.Stderr, "carboy: %s\n", exit.Reason)
	}
	if status := exit.Status(); status != 0 {
		return exitStatus(status)
	}
	return nil
}

func runIn(ctx context.Context, host *runtime.Host, name string, spec initproto.Spec, term terminal) (initproto.Exit, error) {
	client, conn, err := host.Dial(ctx, name)
	if err != nil {
		return initproto.Exit{}, err
	}
	defer conn.Close()
	streams := initproto.Streams{Stdout: os.Stdout, Stderr: os.Stderr}
	if spec.Stdin {
		streams.Stdin = os.Stdin
	}
	restore, err := term.raw(spec.TTY && spec.Stdin)
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
		if err := process.Signal(syscall.SIGTERM); err != nil {
			return initproto.Exit{}, err
		}
	}
	return process.Wait(context.WithoutCancel(ctx))
}
