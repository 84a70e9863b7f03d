package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/proxy/policy"
)

// agentView is an agent in JSON output, a contract with its readers.
type agentView struct {
	Name     string `json:"name"`
	Bottle   string `json:"bottle,omitempty"`
	Provider string `json:"provider,omitempty"`
	Source   string `json:"source"`
	Project  bool   `json:"project"`         // brought by the project
	Shadowed bool   `json:"shadowed"`        // another of that name is used
	Error    string `json:"error,omitempty"` // why it cannot be used
}

// withDirs runs f with the directories of manifests, the project's being that
// of --workspace.
func withDirs(c *cobra.Command, f func(who invoker.User, dirs []manifest.Dir) error) error {
	who, err := invoker.Current()
	if err != nil {
		return err
	}
	dir, err := c.Flags().GetString("workspace")
	if err != nil {
		return err
	}
	if dir != "" {
		if dir, err = absolute(dir); err != nil {
			return err
		}
	}
	return f(who, manifestDirs(who, dir))
}

func workspaceFlag(c *cobra.Command) {
	c.Flags().String("workspace", "", "`DIR` of the project that may bring agents (default the current directory)")
}

func newAgents() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "agents",
		Short: "List the agents that can be run, and those that are broken",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withDirs(c, func(_ invoker.User, dirs []manifest.Dir) error {
				list, err := manifest.List(dirs)
				views := []agentView{}
				for _, l := range list {
					views = append(views, viewAgent(l))
				}
				if asJSON {
					return errors.Join(printJSON(c.OutOrStdout(), views), err)
				}
				return errors.Join(printAgents(c.OutOrStdout(), views), err)
			})
		},
	}
	workspaceFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func viewAgent(l manifest.Listed) agentView {
	v := agentView{Name: l.Agent.Name, Bottle: l.Agent.Bottle, Provider: l.Agent.Provider, Source: l.Agent.Source, Project: l.Agent.Project, Shadowed: l.Shadowed}
	if l.Err != nil {
		v.Error = words(l.Err)
	}
	return v
}

func printAgents(w io.Writer, list []agentView) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "NAME\tBOTTLE\tPROVIDER\tSOURCE\tSTATE") // Flush tells
	for _, v := range list {
		var state []string
		if v.Project {
			state = append(state, "project's")
		}
		if v.Shadowed {
			state = append(state, "shadowed")
		}
		if v.Error != "" {
			first, _, _ := strings.Cut(v.Error, "\n")
			state = append(state, "broken: "+policy.Visible(first))
		}
		_, _ = fmt.Fprintln(t, strings.Join([]string{quote(v.Name), cmp.Or(v.Bottle, "-"), cmp.Or(v.Provider, "-"), quote(v.Source), cmp.Or(strings.Join(state, ", "), "-")}, "\t"))
	}
	return t.Flush()
}
