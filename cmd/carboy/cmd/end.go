package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"carboy/runtime"
	"carboy/runtime/initproto"
)

func newStop(s *settings) *cobra.Command {
	var all bool
	seconds := int(runtime.StopTime / time.Second)
	c := &cobra.Command{
		Use:   "stop [-t SECONDS] NAME...",
		Short: "End the commands of bottles gracefully, and wait for the bottles' ends",
		RunE: func(c *cobra.Command, args []string) error {
			if seconds < 0 {
				return fmt.Errorf("--time %d: give seconds, 0 or more: %w", seconds, errdefs.ErrInvalidArgument)
			}
			return eachBottle(c, s, "waiting for %s to end", args, all, func(ctx context.Context, h *runtime.Host, name string) error {
				return stop(ctx, h, name, time.Duration(seconds)*time.Second)
			})
		},
	}
	c.Flags().IntVarP(&seconds, "time", "t", seconds, "seconds between SIGTERM and SIGKILL")
	c.Flags().BoolVar(&all, "all", false, "all running bottles")
	return c
}

func stop(ctx context.Context, h *runtime.Host, name string, grace time.Duration) error {
	r, err := h.Find(ctx, name)
	if err != nil {
		return err
	}
	process, conn, err := attachQuietly(ctx, h, name)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := process.Stop(grace); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return h.AwaitRemoval(ctx, r)
}

func newKill(s *settings) *cobra.Command {
	var all bool
	var text string
	c := &cobra.Command{
		Use:   "kill [-s SIGNAL] NAME...",
		Short: "Send a signal to the commands of bottles",
		RunE: func(c *cobra.Command, args []string) error {
			signal, err := parseSignal(text)
			if err != nil {
				return err
			}
			return eachBottle(c, s, "sending %s a signal", args, all, func(ctx context.Context, h *runtime.Host, name string) error {
				process, conn, err := attachQuietly(ctx, h, name)
				if err != nil {
					return err
				}
				return errors.Join(process.Signal(signal), conn.Close())
			})
		},
	}
	c.Flags().StringVarP(&text, "signal", "s", "KILL", "signal, by name or number")
	c.Flags().BoolVar(&all, "all", false, "all running bottles")
	return c
}

func parseSignal(text string) (syscall.Signal, error) {
	const most = 64
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= most {
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if signal := unix.SignalNum("SIG" + name); signal != 0 {
		return signal, nil
	}
	return 0, fmt.Errorf("no signal %q: %w", text, errdefs.ErrInvalidArgument)
}

func newWait(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "wait NAME...",
		Short: "Wait for the commands of bottles to end and print their exit codes",
		Long: `Wait for the commands of bottles to end and print their exit codes, one on a
line. Bottles that have ended are known for a week; 125 stands for one whose
command was not run or whose supervisor was killed.`,
		Args: atLeastOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			return awaited(c, s, "waiting for "+strings.Join(args, " ")+" to end", func(ctx context.Context, h *runtime.Host) error {
				for _, name := range args {
					exit, err := wait(ctx, h, name)
					if err != nil {
						return fmt.Errorf("wait for %s: %w", name, err)
					}
					if _, err := fmt.Fprintln(c.OutOrStdout(), exit.Status()); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func wait(ctx context.Context, h *runtime.Host, name string) (initproto.Exit, error) {
	process, conn, err := attachQuietly(ctx, h, name)
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return h.ExitOf(ctx, name)
	}
	if err != nil {
		return initproto.Exit{}, err
	}
	defer conn.Close()
	return process.Wait(ctx)
}

// eachBottle does something to the named bottles, or to all that run, and
// prints the names of those where it was done. Doing has a %s for their names.
func eachBottle(c *cobra.Command, s *settings, doing string, names []string, all bool, do func(context.Context, *runtime.Host, string) error) error {
	if err := someOrAll(c, names, all); err != nil {
		return err
	}
	doing = fmt.Sprintf(doing, cmp.Or(strings.Join(names, " "), "all bottles"))
	return awaited(c, s, doing, func(ctx context.Context, h *runtime.Host) (err error) {
		if names, err = chosen(ctx, h, names, all); err != nil {
			return err
		}
		return together(names, func(name string) error {
			if err := do(ctx, h, name); err != nil {
				return err
			}
			_, _ = io.WriteString(c.OutOrStdout(), name+"\n")
			return nil
		})
	})
}

func someOrAll(c *cobra.Command, names []string, all bool) error {
	if all == (len(names) > 0) {
		return fmt.Errorf("give bottles, or --all: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
	}
	return nil
}

// chosen are the bottles that were named, or all that run.
func chosen(ctx context.Context, h *runtime.Host, names []string, all bool) ([]string, error) {
	if all {
		return running(ctx, h)
	}
	return names, nil
}

// together does something to several bottles at once, as most of it is waiting,
// and returns all errors.
func together(names []string, do func(name string) error) error {
	const most = 16
	errs := make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(most)
	for i, name := range names {
		g.Go(func() error {
			errs[i] = do(name)
			return nil
		})
	}
	_ = g.Wait() // the errors are in the list
	return errors.Join(errs...)
}

func running(ctx context.Context, h *runtime.Host) (names []string, err error) {
	list, err := h.List(ctx)
	for _, b := range list {
		if b.State == runtime.StateRunning {
			names = append(names, b.Name)
		}
	}
	return names, err
}
