package cmd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/verify"
)

// findingView is a row in JSON output, a contract with its readers.
type findingView struct {
	Bottle string `json:"bottle"`
	verify.Finding
}

func newVerify(s *settings) *cobra.Command {
	out := findingTable()
	var all bool
	c := &cobra.Command{
		Use:   "verify [flags] NAME...",
		Short: "Prove that running bottles are sealed, and change nothing in them",
		Long: `Prove that running bottles are sealed, by what is in force on the host, by
packets on the agent's link and by a process in its container, which runs as the
agent. It takes about a second, leaves no trace, needs nothing of the image and
changes nothing. Of a sealed bottle no packet leaves the host, but for what the
proxy needs to open a tunnel to the first allowed host.

Each probe has passed (PASS), found a hole (FAIL), or proved nothing (UNKNOWN):
it could not run, or its control, something that has to answer, did not. Those
that begin with link- put packets on the agent's link as an agent with every
capability could; those that begin with agent- are the process in the container,
which a live agent could make lie.

The status is 0 where all have passed, 1 where one has failed, and 2 where none
has failed and one proved nothing, or when verify itself failed.`,
		Example: `  carboy verify reviewer
  carboy verify --all --json
  carboy run reviewer --gate          # the same, before the agent starts`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := someOrAll(c, args, all); err != nil {
				return err
			}
			rows, err := verifyAll(c, s, args, all)
			if printErr := out.print(c.OutOrStdout(), rows); printErr != nil {
				return printErr
			}
			if err != nil {
				_, _ = fmt.Fprintf(c.ErrOrStderr(), "carboy: %s\n", words(err))
			}
			return verdict(rows, err)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all running bottles")
	out.register(c)
	return c
}

func verifyAll(c *cobra.Command, s *settings, names []string, all bool) (rows []findingView, err error) {
	err = withHost(c, s, func(ctx context.Context, h *runtime.Host) (err error) {
		if names, err = chosen(ctx, h, names, all); err != nil {
			return err
		}
		found := make(map[string]verify.Findings, len(names))
		var mu sync.Mutex
		err = together(names, func(name string) error {
			one, err := h.Verify(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			found[name] = one
			return err
		})
		for _, name := range names {
			for _, f := range found[name] {
				rows = append(rows, findingView{name, f})
			}
		}
		return err
	})
	return rows, err
}

// verdict is the exit status.
func verdict(rows []findingView, err error) error {
	const failed, unproved = 1, 2
	var found verify.Findings
	for _, r := range rows {
		found = append(found, r.Finding)
	}
	switch worst := found.Worst(); {
	case worst == verify.Fail:
		return exitStatus(failed)
	case errors.Is(err, context.Canceled):
		return exitStatus(exitInterrupted)
	case err != nil || worst != verify.Pass:
		return exitStatus(unproved)
	}
	return nil
}

func findingTable() *table[findingView] {
	return &table[findingView]{
		head:  []string{"BOTTLE", "PROBE", "RESULT", "SEEN"},
		cells: func(f findingView) []string { return []string{f.Bottle, f.Probe, string(f.Result), f.Seen} },
		name: func(f findingView) string {
			if f.Result == verify.Pass {
				return ""
			}
			return f.Bottle + " " + f.Probe
		},
		quiet: "print only what has not passed: a bottle and a probe",
	}
}
