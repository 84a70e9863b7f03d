package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"carboy/runtime"
)

// withHost runs f with a connection to containerd.
func withHost(c *cobra.Command, s *settings, f func(context.Context, *runtime.Host) error) error {
	host, err := s.host(c.Context())
	if err != nil {
		return err
	}
	return errors.Join(f(host.Context(c.Context()), host), host.Close())
}

// bottleView is a bottle in JSON output, a contract with its readers.
type bottleView struct {
	Name     string    `json:"name"`
	Instance string    `json:"instance"`
	Agent    string    `json:"agent"`
	Image    string    `json:"image"`
	Runtime  string    `json:"runtime"`
	Proxy    string    `json:"proxy"`
	State    string    `json:"state"`
	Created  time.Time `json:"created"`
	Owner    string    `json:"owner"`
	PID      int       `json:"pid"`              // of the supervisor; 0 of one that has ended
	Reason   string    `json:"reason,omitempty"` // why it is leaking
	Ended    time.Time `json:"ended,omitzero"`
	ExitCode *int      `json:"exitCode,omitempty"` // where it is known
}

func view(b runtime.Status) bottleView {
	return bottleView{
		Name: b.Name, Instance: b.Instance, Agent: b.Agent, Image: b.Image, Runtime: b.Runtime,
		Proxy: b.Proxy, State: b.State, Created: b.Created, Owner: userName(b.User), PID: b.Owner.PID, Reason: b.Reason,
	}
}

// pastView is a bottle that is known from its record only.
func pastView(b runtime.History) bottleView {
	v := bottleView{
		Name: b.Name, Instance: b.Instance, Agent: b.Agent, Image: b.Image, Runtime: b.Runtime,
		Proxy: b.Proxy, State: "killed", Created: b.Started, Owner: userName(b.User), Ended: b.Ended,
	}
	switch {
	case b.Exit != nil:
		code := b.Exit.Status()
		v.State, v.ExitCode = "exited "+strconv.Itoa(code), &code
	case b.Error != "":
		v.State = "failed"
	}
	return v
}

func userName(uid int) string {
	text := strconv.Itoa(uid)
	if u, err := user.LookupId(text); err == nil {
		return u.Username
	}
	return text
}

func newLs(s *settings) *cobra.Command {
	out := bottleTable()
	var all bool
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List bottles",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return awaited(c, s, "looking at bottles", func(ctx context.Context, h *runtime.Host) error {
				views, err := listed(ctx, h, all)
				return errors.Join(out.print(c.OutOrStdout(), views), err)
			})
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "also those that have ended, for a week")
	out.register(c)
	return c
}

// listed are the bottles that there are, then those that were, the last first.
func listed(ctx context.Context, h *runtime.Host, all bool) ([]bottleView, error) {
	list, err := h.List(ctx)
	views := make([]bottleView, 0, len(list))
	there := map[string]bool{}
	for _, b := range list {
		views = append(views, view(b))
		there[b.Instance] = true
	}
	if !all {
		return views, err
	}
	past, pastErr := h.Histories()
	slices.SortFunc(past, func(a, b runtime.History) int { return b.Started.Compare(a.Started) })
	for _, b := range past {
		if !there[b.Instance] {
			views = append(views, pastView(b))
		}
	}
	return views, errors.Join(err, pastErr)
}

func bottleTable() *table[bottleView] {
	return &table[bottleView]{
		head: []string{"NAME", "AGENT", "IMAGE", "RUNTIME", "PROXY", "STATE", "AGE", "OWNER"},
		cells: func(b bottleView) []string {
			age := units.HumanDuration(time.Since(b.Created))
			return []string{b.Name, cmp.Or(b.Agent, "-"), b.Image, b.Runtime, b.Proxy, b.State, age, b.Owner}
		},
		name:  func(b bottleView) string { return b.Name },
		quiet: "print names only",
		note: func(b bottleView) string {
			if b.Reason == "" {
				return ""
			}
			return b.Name + " is leaking, `carboy gc` tries again: " + b.Reason
		},
	}
}

func newInspect(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: "Print what is known about a bottle as JSON",
		Args:  exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				r, err := h.Find(ctx, args[0])
				if err != nil {
					return err
				}
				return printJSON(c.OutOrStdout(), h.Inspect(ctx, r))
			})
		},
	}
}

func newRm(s *settings) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "rm [-f] NAME...",
		Short: "Remove bottles",
		Long:  "Remove bottles that are dead or were kept. With -f running ones are ended first. Of one that has ended, remove what its agent changed in the workspace.",
		Args:  atLeastOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			return awaited(c, s, "removing "+strings.Join(args, " "), func(ctx context.Context, h *runtime.Host) error {
				return together(args, func(name string) error {
					if err := h.Remove(ctx, name, force); err != nil {
						return err
					}
					_, _ = fmt.Fprintln(c.OutOrStdout(), name)
					return nil
				})
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "end running bottles first")
	return c
}

func newGC(s *settings) *cobra.Command {
	var dry, asJSON bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what dead bottles left behind",
		Long: `Remove what bottles left whose supervisor is gone: killed, or ended by a reboot.
Live and kept bottles, and what is not carboy's, are not touched.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return awaited(c, s, "removing what dead bottles left", func(ctx context.Context, h *runtime.Host) error {
				swept, err := h.GC(ctx, runtime.Sweep{Dry: dry})
				if asJSON {
					return errors.Join(printJSON(c.OutOrStdout(), swept), err)
				}
				return errors.Join(printSwept(c.OutOrStdout(), swept, dry), err)
			})
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be removed")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printSwept(w io.Writer, swept []runtime.Swept, dry bool) error {
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	for _, x := range swept {
		if x.Error != "" {
			continue // told with the error
		}
		if _, err := fmt.Fprintf(w, "%s %s %s\n", verb, x.Kind, quotePath(cmp.Or(x.Name, x.Instance))); err != nil {
			return err
		}
	}
	return nil
}
