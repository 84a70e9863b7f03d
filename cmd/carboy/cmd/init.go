package cmd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/manifest/presets"
	"carboy/runtime/provision"
)

// newAgent is what init is told.
type newAgent struct {
	name, bottle, provider, image, dest string
	presets, allow                      []string
	yes                                 bool
}

func newInit() *cobra.Command {
	n := &newAgent{}
	c := &cobra.Command{
		Use:   "init [AGENT]",
		Short: "Write the manifests of a new agent and its bottle",
		Long: `Write agents/AGENT.md and bottles/AGENT.yaml to ~/.config/carboy of the user who
calls. What the flags do not say is asked on the terminal, or with --yes taken as
the default. Nothing is overwritten.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return noArgs(c, args[1:])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			n.name = strings.Join(args, "")
			return n.write(c)
		},
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&n.provider, "provider", "", "kind of agent: claude, codex or generic (default generic)")
	fl.StringVar(&n.image, "image", "", "image of the agent (default for claude and codex: one that is built)")
	fl.StringVar(&n.bottle, "bottle", "", "name of its bottle (default AGENT)")
	fl.StringSliceVar(&n.presets, "preset", nil, "lists of hosts it may reach: "+strings.Join(presets.Names(), ", ")+" (default its provider's)")
	fl.StringSliceVar(&n.allow, "allow", nil, "further hosts it may reach")
	fl.StringVar(&n.dest, "dest", "", "`DIR` to write to (default ~/.config/carboy)")
	fl.BoolVarP(&n.yes, "yes", "y", false, "ask nothing")
	return c
}

// write asks, checks and writes.
func (n *newAgent) write(c *cobra.Command) error {
	who, err := invoker.Current()
	if err != nil {
		return err
	}
	if err := n.ask(c); err != nil {
		return err
	}
	dir, err := draftsDir(who, n.dest)
	if err != nil {
		return err
	}
	drafts, err := n.drafts(dir.Path)
	if err == nil {
		err = checkDrafts(dir, drafts)
	}
	if err != nil {
		return err
	}
	return writeDrafts(c.OutOrStdout(), who, drafts)
}

// ask completes what was told, and refuses what is not known before the next
// question.
func (n *newAgent) ask(c *cobra.Command) error {
	var tty *os.File
	if !n.yes {
		var err error
		if tty, err = openTerminal(); err != nil {
			return err
		}
		defer tty.Close()
	}
	q := questions{in: bufio.NewReader(tty), out: tty, off: n.yes}
	ctx := c.Context()
	n.name = q.text(ctx, "name of the agent", n.name, "")
	if !manifest.ValidName(n.name) {
		return fmt.Errorf("name of the agent %q: use lower-case letters, digits, '.', '_' and '-', at most 40: %w", n.name, errdefs.ErrInvalidArgument)
	}
	n.provider = q.text(ctx, "provider (claude, codex, generic)", n.provider, provision.Generic)
	if err := (provision.Agent{Provider: n.provider}).Check(); err != nil {
		return err
	}
	own := slices.Contains(presets.Names(), n.provider)
	what := "image"
	if own {
		what = "image (empty: build one)"
	}
	n.image = q.text(ctx, what, n.image, "")
	standard := ""
	if own {
		standard = n.provider
	}
	n.presets = q.list(ctx, "presets of hosts ("+strings.Join(presets.Names(), ", ")+")", n.presets, standard, c.Flags().Changed("preset"))
	n.allow = q.list(ctx, "further hosts", n.allow, "", c.Flags().Changed("allow"))
	if n.bottle == "" {
		n.bottle = n.name
	}
	return ctx.Err()
}

func (n *newAgent) drafts(dir string) ([]draft, error) {
	b := bottleDraft{Image: n.image, Egress: egressDraft{Presets: n.presets, Allow: n.allow}}
	var drafts []draft
	if n.image == "" {
		d, ok := draftDockerfile(dir, n.provider)
		if !ok {
			return nil, fmt.Errorf("no image: give one with --image: %w", errdefs.ErrInvalidArgument)
		}
		b.Build = &buildDraft{Context: n.provider}
		drafts = append(drafts, d)
	}
	bottle, err := draftBottle(dir, n.bottle, b)
	if err != nil {
		return nil, err
	}
	agent, err := draftAgent(dir, n.name, agentDraft{Bottle: n.bottle, Provider: n.provider}, "")
	return append(drafts, bottle, agent), err
}

// questions are asked one line each.
type questions struct {
	in  *bufio.Reader
	out io.Writer
	off bool // take the defaults
}

// text is given, or what is answered.
func (q questions) text(ctx context.Context, what, given, standard string) string {
	if given != "" || q.off {
		if given == "" {
			return standard
		}
		return given
	}
	if standard != "" {
		what += " [" + standard + "]"
	}
	_, _ = fmt.Fprint(q.out, what+": ") // a terminal that is gone answers nothing
	answer := readLine(ctx, q.in)
	if answer == "" {
		return standard
	}
	return answer
}

func (q questions) list(ctx context.Context, what string, given []string, standard string, told bool) []string {
	if told {
		return given
	}
	return strings.FieldsFunc(q.text(ctx, what, "", standard), func(r rune) bool { return r == ',' || r == ' ' })
}
