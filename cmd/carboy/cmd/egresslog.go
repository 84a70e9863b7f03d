package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/egress"
	"carboy/runtime/output"
	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
)

func newEgressLog(s *settings) *cobra.Command {
	var follow, denied, asJSON bool
	c := &cobra.Command{
		Use:   "log [flags] NAME",
		Short: "Show what the proxy of a bottle decided, also after its end",
		Long: `Show what the proxy of a bottle decided, in one form for both engines: time, bottle,
verdict, method, host and port, rule, bytes both ways, and why. A tunnel has a line
when it opens and one, close, when it ends. What an agent chose is a valid host name
or quoted.

The allowlist engine counts the bytes of tunnels only. pipelock does not log which
rule allows, nor requests inside of TLS that it opens and
lets pass, nor the hosts that a paused bottle asks for.`,
		Args: exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			show := printDecision
			if asJSON {
				show = func(w io.Writer, d proxy.Decision) error { return json.NewEncoder(w).Encode(d) }
			}
			return decisions(c, s, args[0], follow, func(d proxy.Decision) error {
				if denied && d.Verdict != policy.Deny {
					return nil
				}
				return show(c.OutOrStdout(), d)
			})
		},
	}
	fl := c.Flags()
	fl.BoolVarP(&follow, "follow", "f", false, "go on until the bottle ends")
	fl.BoolVar(&denied, "denied", false, "show only what was refused")
	fl.BoolVar(&asJSON, "json", false, "print JSON, one object on a line")
	return c
}

// decisions passes over lines that tell of something else.
func decisions(c *cobra.Command, s *settings, name string, follow bool, emit func(proxy.Decision) error) error {
	return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
		about, err := h.History(name)
		if err != nil {
			return err
		}
		engine, err := proxy.New(about.Proxy)
		if err != nil {
			return err
		}
		query := output.Query{Tail: -1, Follow: follow, Ended: func() bool { return !h.Lives(about.Instance) }}
		return output.ReadProxy(ctx, about.LogDir, query, func(l output.Line) error {
			d, ok := engine.Decision(l.Text)
			if !ok {
				return nil
			}
			d.Bottle = about.Name
			return emit(d)
		})
	})
}

func printDecision(w io.Writer, d proxy.Decision) error {
	host := cmp.Or(d.Host, "-")
	if d.Port != 0 {
		host = net.JoinHostPort(host, strconv.Itoa(int(d.Port)))
	}
	_, err := fmt.Fprintf(w, "%s %s %-5s %-7s %s %s %d %s\n", d.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"), d.Bottle,
		d.Verdict, cmp.Or(d.Method, "-"), host, cmp.Or(d.Rule, "-"), d.Bytes, cmp.Or(d.Reason, "-"))
	return err
}

func newEgressSuggest(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "suggest NAME",
		Short: "Print what a manifest would have to allow of what was refused in a bottle",
		Long: `Print the lines of a manifest that would allow what was refused in a bottle, because
no rule allows it, and was not allowed later. The agent chose these names: read before
you copy. Wildcards, addresses, and what is no valid name are never suggested.`,
		Args: exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			var refused egress.Refused
			err := decisions(c, s, args[0], false, func(d proxy.Decision) error {
				refused.Add(d)
				return nil
			})
			if err != nil {
				return err
			}
			if refused.Empty() {
				_, err = fmt.Fprintln(c.ErrOrStderr(), "carboy: nothing was refused that a manifest could allow by its name")
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), refused.Manifest())
			return err
		},
	}
}
