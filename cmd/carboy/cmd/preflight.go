package cmd

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/docker/go-units"

	"carboy/runtime"
	"carboy/runtime/provision"
	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
)

// rows are a table of what a plan says.
type rows struct{ *tabwriter.Writer }

func newRows(w io.Writer) rows { return rows{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)} }

func (r rows) add(name, value string) { _, _ = fmt.Fprintf(r, "%s\t%s\n", name, value) } // Flush tells

// describe prints names of variables and never their values.
func describe(w io.Writer, p *runtime.Plan, runtimeText string) error {
	r := newRows(w)
	r.add("agent", agentText(cmp.Or(p.Agent, "(none)"), p.Source, p.Project))
	if p.Provider != provision.Generic || p.HasTask {
		r.add("provider", providerText(p))
	}
	if len(p.Skills) > 0 {
		r.add("skills", strings.Join(p.Skills, " "))
	}
	r.program(p)
	r.place(p)
	if w := p.Workspace; w != nil {
		r.add("workspace", quote(w.Directory)+" at "+quote(w.Target)+" ("+workspaceText[w.Mode]+")")
	}
	r.add("runtime", runtimeText)
	r.add("proxy", proxyText(p.Proxy))
	r.grants(p)
	return r.Flush()
}

// program is what runs, and what it is told.
func (r rows) program(p *runtime.Plan) {
	if b := p.Bottle; b != nil {
		r.add("bottle", bottleText(b.Name, b.Source, b.Parents))
	}
	r.add("image", p.Image)
	if b := p.Build; b != nil {
		r.add("built from", quote(b.Context)+" ("+quote(cmp.Or(b.Dockerfile, "Dockerfile"))+", network "+b.Network+")")
	}
	whose := "the image's"
	if p.Provider != provision.Generic {
		whose = "the provider's"
	}
	r.add("command", cmp.Or(quoteAll(p.Command), whose))
	if p.HasPrompt {
		r.add("prompt", promptText(p.Prompt()))
	}
}

// place is as whom and where it runs.
func (r rows) place(p *runtime.Plan) {
	r.add("user", cmp.Or(quote(p.User), "the image's, or "+runtime.DefaultUser+" where that is root"))
	if p.Workdir != "" {
		r.add("working directory", quote(p.Workdir))
	}
}

// grants are what the bottle holds and reaches.
func (r rows) grants(p *runtime.Plan) {
	for _, m := range p.Mounts {
		how := "read-only"
		if m.Writable {
			how = "LIVE: the agent writes to it"
		}
		r.add("mount", quote(m.Source)+" at "+quote(m.Target)+" ("+how+")")
	}
	r.add("environment", cmp.Or(strings.Join(p.Env, " "), "(none)"))
	if len(p.Secrets) > 0 {
		r.add("secret files", strings.Join(p.Secrets, " "))
	}
	r.add("allowed hosts", cmp.Or(strings.Join(p.Allow, " "), "(none)"))
	if len(p.Private) > 0 {
		r.add("private addresses", strings.Join(p.Private, " "))
	}
	if len(p.Intercept) > 0 {
		r.add("intercepted", strings.Join(p.Intercept, " "))
	}
	if p.DLP != "" {
		r.add("dlp", dlpText[p.DLP])
	}
	if names := p.Unsearched(); len(names) > 0 {
		r.add("dlp misses", strings.Join(names, " ")+" ("+unsearchable+")")
	}
	if g := p.Git; g != nil {
		r.add("git", gitText(*g))
	}
	for _, h := range p.SSH {
		r.add("ssh", sshText(h))
	}
	r.add("limits", limitsText(p.Limits))
	if p.Gate {
		r.add("gate", "starts when every probe has passed")
	}
}

func agentText(name, source string, project bool) string {
	if source != "" {
		name += " (" + quote(source) + ")"
	}
	if project {
		name += " BROUGHT BY THE PROJECT"
	}
	return name
}

// promptText says how much an agent is told, and how it begins.
func promptText(prompt string) string {
	first, _, _ := strings.Cut(prompt, "\n")
	return fmt.Sprintf("%d characters: %s", utf8.RuneCountInString(prompt), policy.Escape(first))
}

// dlpText says what becomes of a message with a secret in it.
var dlpText = map[string]string{
	proxy.Block: "block secrets in plain HTTP and in what is intercepted",
	proxy.Warn:  "log secrets in plain HTTP and in what is intercepted, and block those in a URL",
}

const unsearchable = "too short to look for, or the address of a server"

// bottleText says where what a bottle may do is written.
func bottleText(name, source string, parents []string) string {
	text := name + " (" + quote(source) + ")"
	if len(parents) > 0 {
		text += " extends " + quoteAll(parents)
	}
	return text
}

// workspaceText says what becomes of an agent's changes.
var workspaceText = map[string]string{
	runtime.ModeCopy:    "a copy",
	runtime.ModeOverlay: "live below, changes above",
	runtime.ModeBind:    "LIVE: the agent writes to this directory",
}

func quoteAll(args []string) string {
	var out []string
	for _, a := range args {
		out = append(out, cmp.Or(quote(a), `""`))
	}
	return strings.Join(out, " ")
}

// quote makes text safe for a terminal, and unambiguous.
func quote(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`'"\$`, r) }) {
		return strconv.Quote(s)
	}
	return s
}

// providerText says by what its program will log in.
func providerText(p *runtime.Plan) string {
	text := p.Provider
	if p.Model != "" {
		text += ", model " + quote(p.Model)
	}
	if p.Permissions != "" {
		text += ", permissions " + p.Permissions
	}
	if p.HasTask {
		text += ", one task"
	}
	if p.RemoteControl {
		text += ", REMOTE CONTROL"
	}
	if names := p.LoginNames(); len(names) > 0 {
		return text + " (no login: none of " + strings.Join(names, ", ") + " is set)"
	} else if p.Login != "" {
		return text + " (login by " + p.Login + ")"
	}
	return text
}

func proxyText(p runtime.ProxyPlan) string {
	if from := cmp.Or(p.Binary, p.Image); from != "" {
		return p.Engine + " (" + quote(from) + ")"
	}
	return p.Engine + " (hosts only: content is not scanned)"
}

func limitsText(l runtime.PlanLimits) string {
	cpus := "all"
	if l.CPUs > 0 {
		cpus = fmt.Sprint(l.CPUs)
	}
	return fmt.Sprintf("memory %s, cpus %s, pids %d, disk %s", units.BytesSize(float64(l.Memory)), cpus, l.Pids, units.BytesSize(float64(l.Disk)))
}
