package cmd

import (
	"cmp"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/provision"
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
	Git      *provision.Git     `json:"git,omitempty"`
	SSH      []string           `json:"ssh"` // hosts

	Intercept []string            `json:"intercept"`
	DLP       string              `json:"dlp,omitempty"`
	Mounts    []runtime.MountPlan `json:"mounts"`
	User      string              `json:"user,omitempty"`    // empty: the image's
	Workdir   string              `json:"workdir,omitempty"` // empty: the image's
	Runtime   string              `json:"runtime"`
	Proxy     runtime.ProxyPlan   `json:"proxy"`
	Limits    runtime.PlanLimits  `json:"limits"`
	Build     *runtime.BuildPlan  `json:"build,omitempty"` // makes the image first
}

type promptView struct {
	Characters int    `json:"characters"`
	FirstLine  string `json:"firstLine"`
}

func newInfo(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "info AGENT",
		Short: "Show what an agent is and what it is granted",
		Args:  exactlyOne("an agent"),
		RunE: func(c *cobra.Command, args []string) error {
			return withDirs(c, s, func(_ invoker.User, dirs []manifest.Dir) error {
				a, b, err := manifest.Find(dirs, args[0])
				if err != nil {
					return err
				}
				p, err := examine(s, a, b)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(c.OutOrStdout(), viewInfo(a, p))
				}
				return printInfo(c.OutOrStdout(), a, p)
			})
		},
	}
	workspaceFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// examine is the plan of manifests alone, in which all variables of the caller
// are there, and a bottle that only others extend has an image. Without settings
// the engine is the bottle's own, or the usual one.
func examine(s *settings, a manifest.Agent, b manifest.Bottle) (*runtime.Plan, error) {
	if err := skill.CheckNames(a.Skills); err != nil {
		return nil, a.At("skills").Fault(err)
	}
	r := runtime.Request{Agent: &a, Bottle: &b, Lookup: func(string) (string, bool) { return "", true }}
	if a.Name == "" && b.Image == "" && b.Build == nil {
		r.Image = "scratch"
	}
	if s != nil {
		r.Engine, r.ProxyImage = chooseProxy(s, b.Proxy, "")
	}
	return runtime.NewPlan(r)
}

func viewInfo(a manifest.Agent, p *runtime.Plan) infoView {
	first, _, _ := strings.Cut(a.Prompt, "\n")
	v := infoView{
		Name: a.Name, Source: a.Source, Project: a.Project, Provider: p.Provider, Model: a.Model, Command: p.Command, Skills: list(a.Skills),
		Prompt: promptView{utf8.RuneCountInString(a.Prompt), first}, Bottle: *p.Bottle, Image: p.Image,
		Env: p.Env, Secrets: list(p.Secrets), Allow: p.Allow, Private: p.Private, Git: p.Git, SSH: []string{},
		Intercept: p.Intercept, DLP: p.DLP, Mounts: list(p.Mounts),
		User: p.User, Workdir: p.Workdir, Runtime: p.Runtime, Proxy: p.Proxy, Limits: p.Limits, Build: p.Build,
	}
	for _, s := range p.SSH {
		v.SSH = append(v.SSH, s.Host)
	}
	return v
}

// list is empty in JSON, and not null.
func list[T any](l []T) []T { return append([]T{}, l...) }

// printInfo leaves out what only a start knows: which login there is, where the
// skills are.
func printInfo(w io.Writer, a manifest.Agent, p *runtime.Plan) error {
	r := newRows(w)
	r.add("agent", agentText(a.Name, a.Source, a.Project))
	r.add("provider", strings.TrimSpace(p.Provider+" "+quote(a.Model)))
	if a.Permissions != "" {
		r.add("permissions", a.Permissions)
	}
	r.add("skills", cmp.Or(quoteAll(a.Skills), "(none)"))
	r.program(p)
	r.place(p)
	r.add("runtime", p.Runtime)
	r.add("proxy", proxyText(p.Proxy))
	r.grants(p)
	return r.Flush()
}
