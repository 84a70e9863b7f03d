package cmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/audit"
	"carboy/runtime/egress"
	"carboy/runtime/invoker"
)

func newEgress(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "egress",
		Short: "Show and change what a running bottle may reach",
		Long: `Show and change what a running bottle may reach. A change is in force when the
command returns, well within a second, and is in the bottle's record (carboy audit).
It ends with the bottle, unless --save writes it to the bottle's manifest, which
says what the next one may reach.

What is no longer allowed ends at once. The allowlist engine ends those tunnels; under
pipelock every open connection of the bottle ends, also those to other hosts.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newEgressShow(s), newEgressLog(s), newEgressSuggest(s),
		newEgressChange(s, egress.Allow, "Allow a running bottle more hosts", `
Hosts are written as in --allow: example.com, *.example.com, with :PORT, or
tcp:HOST:PORT. Their TLS passes through, but for hosts whose was opened at the start.`),
		newEgressChange(s, egress.Deny, "Take hosts away from a running bottle", `
A host without a port stands for all that is allowed of it. One that would still be
reached, by a wildcard for example, is an error, and nothing is changed.`),
		newEgressChange(s, egress.Pause, "Allow a running bottle nothing, until it is resumed", ""),
		newEgressChange(s, egress.Resume, "Allow a paused bottle what it was allowed before", ""))
	return c
}

func newEgressShow(s *settings) *cobra.Command {
	out := hostTable()
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Show what a running bottle may reach, and what has changed since its start",
		Args:  exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			v, err := steer(c, s, args[0], egress.Request{Do: egress.Show})
			if err != nil {
				return err
			}
			if out.asJSON { // which has what is no host
				return printJSON(c.OutOrStdout(), v)
			}
			if err := out.print(c.OutOrStdout(), v.Hosts); err != nil || out.asNames || out.format != "" {
				return err
			}
			return printEgress(c.OutOrStdout(), v)
		},
	}
	out.register(c)
	return c
}

func hostTable() *table[egress.Host] {
	return &table[egress.Host]{
		head:  []string{"HOST", "TLS", "SINCE", "STATE"},
		cells: func(h egress.Host) []string { return []string{h.Host, cmp.Or(h.TLS, "-"), h.Since, h.State} },
		name: func(h egress.Host) string {
			if h.State != "allowed" {
				return ""
			}
			return h.Host
		},
		quiet: "print the hosts only that are allowed now",
	}
}

// printEgress says what the table does not.
func printEgress(w io.Writer, v egress.View) error {
	from := "the command line"
	if v.Source != "" {
		from = strings.Join(append([]string{quotePath(v.Source)}, quotePaths(v.Parents)...), ", ")
	}
	if len(v.Private) > 0 {
		from += "; private addresses " + strings.Join(v.Private, ", ")
	}
	state := v.Engine
	if v.Paused {
		state += ", paused"
	}
	_, err := fmt.Fprintf(w, "%s; at the start by %s\n", state, from)
	return err
}

func quotePaths(paths []string) (quoted []string) {
	for _, p := range paths {
		quoted = append(quoted, quotePath(p))
	}
	return quoted
}

// newEgressChange has the bottle first, as all commands have that take more.
func newEgressChange(s *settings, do, short, long string) *cobra.Command {
	takes := do == egress.Allow || do == egress.Deny
	use, args := do+" NAME", exactlyOne("a bottle")
	if takes {
		use, args = do+" NAME HOST...", bottleAndHosts
	}
	var save bool
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  strings.TrimSuffix(short+".\n"+long, ".\n"),
		Args:  args,
		RunE: func(c *cobra.Command, args []string) error {
			r := egress.Request{Do: do, Hosts: args[1:]}
			if save {
				return steerAndSave(c, s, args[0], r)
			}
			_, err := steer(c, s, args[0], r)
			return err
		},
	}
	if takes {
		c.Flags().BoolVar(&save, "save", false, "write it to the bottle's manifest too; where that cannot be, nothing is changed")
	}
	return c
}

func bottleAndHosts(c *cobra.Command, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("give a bottle and hosts: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
	}
	return nil
}

// steer asks in the name of the invoker.
func steer(c *cobra.Command, s *settings, name string, r egress.Request) (v egress.View, err error) {
	who, err := invoker.Current()
	if err != nil {
		return v, err
	}
	r.Who = audit.Who{UID: who.UID, Name: who.Name}
	err = withHost(c, s, func(ctx context.Context, h *runtime.Host) (err error) {
		v, err = h.Steer(ctx, name, r)
		return err
	})
	return v, err
}
