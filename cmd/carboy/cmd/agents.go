package cmd

import (
	"cmp"
	"errors"
	"strings"

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
func withDirs(c *cobra.Command, s *settings, f func(who invoker.User, dirs []manifest.Dir) error) error {
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
	return f(who, s.manifestDirs(who, dir))
}

func workspaceFlag(c *cobra.Command) {
	c.Flags().String("workspace", "", "`DIR` of the project that may bring agents (default the current directory)")
}

func newAgents(s *settings) *cobra.Command {
	out := agentTable()
	c := &cobra.Command{
		Use:   "agents",
		Short: "List the agents that can be run, and those that are broken",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withDirs(c, s, func(_ invoker.User, dirs []manifest.Dir) error {
				list, err := manifest.List(dirs)
				var views []agentView
				for _, l := range list {
					if l.Err == nil {
						_, l.Err = examine(s, l.Agent, l.Bottle)
					}
					views = append(views, viewAgent(l))
				}
				return errors.Join(out.print(c.OutOrStdout(), views), err)
			})
		},
	}
	workspaceFlag(c)
	out.register(c)
	return c
}

func viewAgent(l manifest.Listed) agentView {
	v := agentView{Name: l.Agent.Name, Bottle: l.Agent.Bottle, Provider: l.Agent.Provider, Source: l.Agent.Source, Project: l.Agent.Project, Shadowed: l.Shadowed}
	if l.Err != nil {
		v.Error = words(l.Err)
	}
	return v
}

func agentTable() *table[agentView] {
	return &table[agentView]{
		head: []string{"NAME", "BOTTLE", "PROVIDER", "SOURCE", "STATE"},
		cells: func(v agentView) []string {
			return []string{v.Name, cmp.Or(v.Bottle, "-"), cmp.Or(v.Provider, "-"), v.Source, cmp.Or(strings.Join(agentState(v), ", "), "-")}
		},
		name: func(v agentView) string {
			if v.Shadowed || v.Error != "" {
				return ""
			}
			return v.Name
		},
		quiet: "print only the names of those that can be run",
		plain: func(v agentView) agentView {
			v.Name, v.Source = quote(v.Name), quote(v.Source)
			v.Error, _, _ = strings.Cut(v.Error, "\n")
			v.Error = policy.Visible(v.Error)
			return v
		},
	}
}

func agentState(v agentView) (state []string) {
	if v.Project {
		state = append(state, "project's")
	}
	if v.Shadowed {
		state = append(state, "shadowed")
	}
	if v.Error != "" {
		state = append(state, "broken: "+v.Error)
	}
	return state
}
