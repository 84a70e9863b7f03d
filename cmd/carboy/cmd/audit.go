package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/audit"
)

func newAudit(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show and check the record of what was done for a bottle",
		Long: `Each bottle has a record of its start and end, of logins with ssh keys that it was
lent, and of changes of what it may reach: who, when and what. A line is only ever
added, and holds the hash of the one before.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newAuditShow(s), newAuditVerify(s))
	return c
}

func newAuditShow(s *settings) *cobra.Command {
	out := auditTable()
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a bottle's record, also after its end",
		Args:  exactlyOne("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			return withHost(c, s, func(_ context.Context, h *runtime.Host) error {
				about, err := h.History(args[0])
				if err != nil {
					return err
				}
				var entries []audit.Event
				_, err = about.ReadAudit(func(e audit.Event) { entries = append(entries, e) })
				return errors.Join(out.print(c.OutOrStdout(), entries), err)
			})
		},
	}
	out.register(c)
	return c
}

func auditTable() *table[audit.Event] {
	return &table[audit.Event]{
		head: []string{"TIME", "WHO", "EVENT", "VERDICT", "ABOUT"},
		cells: func(e audit.Event) []string {
			return []string{e.Time.Format(time.RFC3339), auditWho(e.Who), e.Event, cmp.Or(e.Verdict, "-"), cmp.Or(auditAbout(e), "-")}
		},
		plain: func(e audit.Event) audit.Event {
			e.Reason = plain(e.Reason)
			return e
		},
	}
}

func auditWho(w *audit.Who) string {
	if w == nil {
		return "-"
	}
	return cmp.Or(plain(w.Name), userName(w.UID))
}

func auditAbout(e audit.Event) string {
	words := append([]string{e.User, e.Host}, e.Hosts...)
	if e.Reason != "" {
		words = append(words, "("+e.Reason+")")
	}
	if e.Omitted > 0 {
		words = append(words, fmt.Sprintf("and %d refusals before", e.Omitted))
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}

// auditView is what was found of one record.
type auditView struct {
	Name     string    `json:"name"`
	Instance string    `json:"instance"`
	Started  time.Time `json:"started"`
	audit.Head
	Complete bool   `json:"complete"`        // it is known that nothing was cut off
	Error    string `json:"error,omitempty"` // what is wrong first
}

func newAuditVerify(s *settings) *cobra.Command {
	all, out := false, auditViewTable()
	c := &cobra.Command{
		Use:   "verify NAME | --all",
		Short: "Check that nothing was changed in a bottle's record",
		Long: `Check that nothing was changed in a bottle's record, removed from it or inserted. The
first line that is wrong is named, and the status is 1.

What was cut off at the end of a record is found by the record's length and last hash,
which are kept beside it when the bottle ends, and are its supervisor's before. Who can
write both files, as root can, can write all of it anew: to be sure of that, keep the
hash that is printed elsewhere.`,
		Args: func(c *cobra.Command, args []string) error {
			if all == (len(args) == 1) || len(args) > 1 {
				return fmt.Errorf("give a bottle or --all: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				records, err := audited(h, args)
				if err != nil {
					return err
				}
				var views []auditView
				for _, about := range records {
					views = append(views, verifyAudit(ctx, h, about))
				}
				return errors.Join(out.print(c.OutOrStdout(), views), wrongStatus(views))
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "check the records of all bottles that are known")
	out.register(c)
	return c
}

// audited are the bottles that were named, or all.
func audited(h *runtime.Host, names []string) ([]runtime.History, error) {
	if len(names) == 0 {
		return h.Histories()
	}
	about, err := h.History(names[0])
	return []runtime.History{about}, err
}

func verifyAudit(ctx context.Context, h *runtime.Host, about runtime.History) auditView {
	v := auditView{Name: about.Name, Instance: about.Instance, Started: about.Started}
	var err error
	if v.Head, v.Complete, err = h.VerifyAudit(ctx, about); err != nil {
		v.Error = words(err)
	}
	return v
}

func (v auditView) found() string {
	switch {
	case v.Error != "":
		return v.Error
	case v.Complete:
		return "whole"
	default:
		return "whole, unless its end was cut off"
	}
}

func wrongStatus(views []auditView) error {
	for _, v := range views {
		if v.Error != "" {
			return exitStatus(exitError)
		}
	}
	return nil
}

func auditViewTable() *table[auditView] {
	return &table[auditView]{
		head: []string{"NAME", "INSTANCE", "ENTRIES", "HASH OF THE LAST", "FOUND"},
		cells: func(v auditView) []string {
			return []string{v.Name, v.Instance, strconv.Itoa(v.Entries), v.Hash, v.found()}
		},
		name:  func(v auditView) string { return v.Instance },
		quiet: "print instances only",
	}
}
