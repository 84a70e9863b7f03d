// Package cmd is carboy's command line: flags in, text out. What bottles are
// and how they live is package runtime's.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"carboy/runtime/manifest"
	"carboy/runtime/version"
)

// Exit codes, as docker's where it has them.
const (
	exitError       = 1
	exitUsage       = 2
	exitCarboy      = 125 // a bottle's command was not run, or its end is unknown
	exitInterrupted = 130 // by a signal, SIGINT as a rule
)

// exitStatus is the status of a command in a bottle: carboy ends with it and
// says nothing.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failed wraps the errors of commands that run something in a bottle, whose
// own status has to stay apart from carboy's.
type failed struct{ error }

func (f failed) Unwrap() error { return f.error }

// failedUnlessUsage leaves wrong requests what they are.
func failedUnlessUsage(err error) error {
	if err == nil || errdefs.IsInvalidArgument(err) {
		return err
	}
	return failed{err}
}

// Main runs the command line and returns the exit code.
func Main() int {
	// Containers read what we make for them, whatever the caller's mask is.
	syscall.Umask(0o022)
	// Secrets pass through this process: no core dump is to have them.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return report(os.Stderr, fmt.Errorf("set not dumpable: %w", err))
	}
	ctx, stop := signal.NotifyContext(context.Background(), wanted(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)...)
	defer stop()
	root := newRoot()
	err := root.ExecuteContext(ctx)
	return report(root.ErrOrStderr(), err)
}

// wanted leaves out what the caller had us ignore, as nohup does.
func wanted(signals ...os.Signal) []os.Signal {
	return slices.DeleteFunc(signals, signal.Ignored)
}

// report prints an error once and turns it into an exit code.
func report(w io.Writer, err error) int {
	var status exitStatus
	if err == nil {
		return 0
	}
	if errors.As(err, &status) {
		return int(status)
	}
	_, _ = fmt.Fprintf(w, "carboy: %s\n", words(err))
	var ran failed
	switch {
	case errors.As(err, &ran):
		return exitCarboy
	case errdefs.IsInvalidArgument(err):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	default:
		return exitError
	}
}

// words is an error as a person reads it: the class at the end of a line is for
// programs, and what to do stands before it. It is safe for a terminal.
func words(err error) string {
	classes := []error{
		errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrUnavailable, errdefs.ErrAlreadyExists,
		errdefs.ErrResourceExhausted,
	}
	if !errors.Is(err, fs.ErrPermission) { // the kernel has the same words for what happened
		classes = append(classes, errdefs.ErrPermissionDenied)
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		for _, class := range classes {
			lines[i] = strings.TrimSuffix(lines[i], ": "+class.Error())
		}
	}
	return plain(strings.Join(lines, "\n"))
}

// plain makes text safe for a terminal in which somebody may have chosen a name:
// no control characters but newlines and tabs, and no marks, such as those that
// turn the direction of writing, that are not seen themselves.
func plain(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Root is all commands, for those who describe them.
func Root() *cobra.Command { return newRoot() }

func newRoot() *cobra.Command { return rootOf(&settings{restrict: restrictionOf}) }

func rootOf(settings *settings) *cobra.Command {
	root := &cobra.Command{
		Use:     "carboy",
		Version: version.Build,
		Short:   "Run AI coding agents in sealed bottles on containerd",
		Long: `carboy runs an untrusted agent in a container that can reach nothing but a
proxy, and the proxy lets through only what you allow. It needs containerd,
runc or runsc, and CNI plugins; it needs no Docker.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if c.Name() == cobra.ShellCompRequestCmd {
				complete(c.Root(), settings) // no other start pays for it
				_, err := settings.admit(c)
				if !errdefs.IsPermissionDenied(err) {
					err = nil // it says nothing, and loads them itself
				}
				return err
			}
			return settings.load(c)
		},
	}
	settings.register(root)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see `%s --help`: %w", err, c.CommandPath(), errdefs.ErrInvalidArgument)
	})
	root.AddCommand(newRun(settings), newLs(settings), newInspect(settings), newExec(settings), newAttach(settings),
		newLogs(settings), newAudit(settings), newEgress(settings), newWait(settings), newStop(settings), newKill(settings), newRm(settings), newDiff(settings),
		newApply(settings), newCp(settings), newCommit(settings), newTop(settings), newStats(settings), newVerify(settings), newGC(settings), newWorkspace(settings),
		newBuild(settings), newImage(settings), newPull(settings), newAgents(settings), newInfo(settings), newInit(), newEdit(settings),
		newValidate(settings), newSchema(), newImport(), newConfig(settings), newGenerate(), newDoctor(settings), newLogin(), newLogout(), newVersion())
	tame(root)
	return root
}

// tame gives cobra's own commands our exit codes, and lets them work whatever
// the configuration is.
func tame(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.PersistentPreRunE = noSettings
			c.Args = func(_ *cobra.Command, args []string) error {
				found, rest, err := root.Find(args)
				if err != nil || len(rest) > 0 {
					return noArgs(found, args[len(args)-len(rest):])
				}
				return nil
			}
		case "completion":
			c.PersistentPreRunE = noSettings
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
			for _, shell := range append(c.Commands(), c) {
				shell.Args = noArgs
			}
		}
	}
}

func noSettings(*cobra.Command, []string) error { return nil }

// noArgs and its like give the class that makes the exit code 2.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		return fmt.Errorf("unknown command %q%s; see `%s --help`: %w", args[0], meant(c, args[0]), c.CommandPath(), errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("%s takes no arguments, got %q: %w", c.CommandPath(), args[0], errdefs.ErrInvalidArgument)
}

func meant(c *cobra.Command, word string) string {
	var known []string
	for _, sub := range c.Commands() {
		known = append(known, sub.Name())
	}
	return manifest.Suggest(word, known)
}

func exactlyOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("give %s: %s: %w", what, c.UseLine(), errdefs.ErrInvalidArgument)
		}
		return nil
	}
}

func atLeastOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("give %s: %s: %w", what, c.UseLine(), errdefs.ErrInvalidArgument)
		}
		return nil
	}
}
