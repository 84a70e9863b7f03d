package cmd

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/skill"
)

// infoView is what is known about an agent that does not run, in JSON output a
// contract with its readers. It has no values of variables.
type infoView struct {
	Name     string             `json:"name"`
	Source   string             `json:"source"`
	Project  bool               `json:"project"`
	Provider string             `json:"provider,omitempty"`
	Model    string             `json:"model,omitempty"`
	Command  []string           `json:"command"`
	Skills   []string           `json:"skills"`
	Prompt   promptView         `json:"prompt"`
	Bottle   runtime.BottlePlan `json:"bottle"`
	Image    string             `json:"image"`
	Env      []string           `json:"env"`     // names
	Secrets  []string           `json:"secrets"` // names of files
	Allow    []string           `json:"allow"`
	Private  []string           `json:"private"`
	SSH      []string           `json:"ssh"` // hosts
}

type promptView struct {
	Characters int    `json:"characters"`
	FirstLine  string `json:"firstLine"`
}

func newInfo() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "info AGENT",
		Short: "Show what an agent is and what it is granted",
		Args:  exactlyOne("an agent"),
		RunE: func(c *cobra.Command, args []string) error {
			return withDirs(c, func(_ invoker.User, dirs []manifest.Dir) error {
				a, b, err := manifest.Find(dirs, args[0])
				if err != nil {
					return err
				}
				v, err := viewInfo(a, b)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(c.OutOrStdout(), v)
				}
				return printInfo(c.OutOrStdout(), v)
			})
		},
	}
	workspaceFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// examine is the plan of manifests alone, in which all variables of the caller
// are there, and a bottle that only others extend has an image.
func examine(a manifest.Agent, b manifest.Bottle) (*runtime.Plan, error) {
	if err := skill.CheckNames(a.Skills); err != nil {
		return nil, err
	}
	r := runtime.Request{Agent: &a, Bottle: &b, Lookup: func(string) (string, bool) { return "", true }}
	if a.Name == "" && b.Image == "" && b.Build == nil {
		r.Image = "scratch"
	}
	return runtime.NewPlan(r)
}

func viewInfo(a manifest.Agent, b manifest.Bottle) (infoView, error) {
	p, err := examine(a, b)
	if err != nil {
		return infoView{}, err
	}
	first, _, _ := strings.Cut(a.Prompt, "\n")
	v := infoView{
		Name: a.Name, Source: a.Source, Project: a.Project, Provider: a.Provider, Model: a.Model, Command: p.Command, Skills: list(a.Skills),
		Prompt: promptView{utf8.RuneCountInString(a.Prompt), first}, Bottle: *p.Bottle, Image: p.Image,
		Env: p.Env, Secrets: list(p.Secrets), Allow: p.Allow, Private: p.Private, SSH: []string{},
	}
	for _, s := range b.SSH {
		v.SSH = append(v.SSH, s.Host)
	}
	return v, nil
}

// list is empty in JSON, and not null.
func list(l []string) []string { return append([]string{}, l...) }

func printInfo(w io.Writer, v infoView) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, value string) { _, _ = fmt.Fprintf(t, "%s\t%s\n", name, cmp.Or(value, "(none)")) } // Flush tells
	agent := v.Name + " (" + quote(v.Source) + ")"
	if v.Project {
		agent += " BROUGHT BY THE PROJECT"
	}
	row("agent", agent)
	row("provider", strings.TrimSpace(v.Provider+" "+quote(v.Model)))
	row("command", cmp.Or(quoteAll(v.Command), "the provider's or the image's"))
	row("skills", quoteAll(v.Skills))
	row("prompt", fmt.Sprintf("%d characters: %s", v.Prompt.Characters, policy.Escape(v.Prompt.FirstLine)))
	row("bottle", bottleText(v.Bottle.Name, v.Bottle.Source, v.Bottle.Parents))
	row("image", v.Image)
	row("environment", strings.Join(v.Env, " "))
	row("secret files", strings.Join(v.Secrets, " "))
	row("allowed hosts", strings.Join(v.Allow, " "))
	row("private addresses", strings.Join(v.Private, " "))
	row("ssh", quoteAll(v.SSH))
	return t.Flush()
}
