package cmd

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/provision"
	"carboy/runtime/proxy"
)

// plan turns flags and manifests into a checked plan. It reads files as the
// invoker and touches nothing.
func (f *runFlags) plan(s *settings, who invoker.User, agent string, term terminal) (*runtime.Plan, error) {
	var err error
	r := f.Request
	r.Lookup, r.Stored = os.LookupEnv, stored(who)
	var asked manifest.Proxy
	if err := f.findWorkspace(&r.Workspace); err != nil {
		return nil, err
	}
	if agent != "" {
		dirs := manifestDirs(who, r.Workspace.Directory)
		a, b, err := manifest.Find(dirs, agent)
		if err != nil {
			return nil, err
		}
		r.Agent, r.Bottle, asked = &a, &b, b.Proxy
		if r.Skills, err = readSkills(who, &a); err != nil {
			return nil, err
		}
	}
	if err := f.setTask(); err != nil {
		return nil, err
	}
	r.Task = f.Task
	r.Engine, r.ProxyImage = chooseProxy(s, asked, r.ProxyBinary)
	if f.envFile != "" {
		if r.EnvFile, err = readEnvFile(who, f.envFile); err != nil {
			return nil, err
		}
	}
	if f.detach { // only what was asked for: the caller's streams are not the command's
		r.TTY, _ = strconv.ParseBool(f.tty) // checked by Set
		r.Stdin, _ = strconv.ParseBool(f.stdin)
	} else if r.TTY, r.Stdin, err = term.streams(f.tty, f.stdin); err != nil {
		return nil, err
	}
	return runtime.NewPlan(r)
}

// findWorkspace makes the directory that was asked for an absolute path.
func (f *runFlags) findWorkspace(w *runtime.WorkspacePlan) (err error) {
	if f.cwd && w.Directory != "" {
		return fmt.Errorf("--cwd is --workspace .: give one of them: %w", errdefs.ErrInvalidArgument)
	}
	if f.cwd {
		w.Directory = "."
	}
	if w.Directory != "" {
		w.Directory, err = filepath.Abs(w.Directory)
	}
	return err
}

// chooseProxy takes flags over the manifest over the operator's defaults. An
// image that nobody asked for on this command line gives way to what else was.
func chooseProxy(s *settings, asked manifest.Proxy, binary string) (engine, image string) {
	over := func(name, inManifest string) string {
		if s.given(name) || inManifest == "" {
			return s.get(name)
		}
		return inManifest
	}
	engine, image = over("proxy", asked.Engine), over("proxy-image", asked.Image)
	if !s.given("proxy-image") && (binary != "" || engine != proxy.Pipelock) {
		image = ""
	}
	return engine, image
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(=|$)`)

// readEnvFile takes docker's format: NAME=VALUE or NAME, # comments, no quotes.
func readEnvFile(who invoker.User, path string) ([]string, error) {
	const limit = 1 << 20
	b, err := who.ReadFile(path, limit)
	if err != nil {
		return nil, fmt.Errorf("env file: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	var env []string
	number := 0
	for line := range strings.Lines(string(b)) {
		number++
		line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		// The line may be a secret: it is not shown.
		if !variable.MatchString(line) {
			return nil, fmt.Errorf("%s:%d: not NAME=VALUE or NAME: %w", path, number, errdefs.ErrInvalidArgument)
		}
		env = append(env, line)
	}
	return env, nil
}

func printPlan(w io.Writer, p *runtime.Plan, format string) error {
	if format == "json" {
		return printJSON(w, p)
	}
	return describe(w, p, p.Runtime)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// describe prints names of variables and never their values.
func describe(w io.Writer, p *runtime.Plan, runtimeText string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, value string) { _, _ = fmt.Fprintf(t, "%s\t%s\n", name, value) } // Flush tells
	agent := cmp.Or(p.Agent, "(none)")
	if p.Source != "" {
		agent += " (" + quote(p.Source) + ")"
	}
	if p.Project {
		agent += " BROUGHT BY THE PROJECT"
	}
	row("agent", agent)
	if b := p.Bottle; b != nil {
		row("bottle", bottleText(b.Name, b.Source, b.Parents))
	}
	row("image", p.Image)
	if b := p.Build; b != nil {
		row("built from", quote(b.Context)+" ("+quote(cmp.Or(b.Dockerfile, "Dockerfile"))+", network "+b.Network+")")
	}
	whose := "the image's"
	if p.Provider != provision.Generic {
		whose = "the provider's"
	}
	if p.Provider != provision.Generic || p.HasTask {
		row("provider", providerText(p))
	}
	row("command", cmp.Or(quoteAll(p.Command), whose))
	if len(p.Skills) > 0 {
		row("skills", strings.Join(p.Skills, " "))
	}
	row("user", cmp.Or(quote(p.User), "the image's, or "+runtime.DefaultUser+" where that is root"))
	if p.Workdir != "" {
		row("working directory", quote(p.Workdir))
	}
	if w := p.Workspace; w != nil {
		row("workspace", quote(w.Directory)+" at "+quote(w.Target)+" ("+workspaceText[w.Mode]+")")
	}
	for _, m := range p.Mounts {
		how := "read-only"
		if m.Writable {
			how = "LIVE: the agent writes to it"
		}
		row("mount", quote(m.Source)+" at "+quote(m.Target)+" ("+how+")")
	}
	row("runtime", runtimeText)
	row("proxy", proxyText(p.Proxy))
	row("environment", cmp.Or(strings.Join(p.Env, " "), "(none)"))
	if len(p.Secrets) > 0 {
		row("secret files", strings.Join(p.Secrets, " "))
	}
	row("allowed hosts", cmp.Or(strings.Join(p.Allow, " "), "(none)"))
	if len(p.Private) > 0 {
		row("private addresses", strings.Join(p.Private, " "))
	}
	if len(p.Intercept) > 0 {
		row("intercepted", strings.Join(p.Intercept, " "))
	}
	if p.DLP != "" {
		row("dlp", dlpText[p.DLP])
	}
	if g := p.Git; g != nil {
		row("git", gitText(*g))
	}
	for _, h := range p.SSH {
		row("ssh", sshText(h))
	}
	row("limits", limitsText(p.Limits))
	return t.Flush()
}

// dlpText says what becomes of a message with a secret in it.
var dlpText = map[string]string{
	proxy.Block: "block secrets in plain HTTP and in what is intercepted",
	proxy.Warn:  "log secrets in plain HTTP and in what is intercepted, and block those in a URL",
}

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

// confirm shows what is about to start, and asks unless told not to.
func (f *runFlags) confirm(ctx context.Context, p *runtime.Plan, o runtime.UpOptions, note string) error {
	text := "runc"
	if o.Runsc != "" {
		text = "runsc (" + o.Runsc + ")"
	}
	if note != "" {
		text += " (" + note + ")"
	}
	if err := describe(os.Stderr, p, text); err != nil {
		return err
	}
	if p.Workspace != nil && p.Workspace.Mode == runtime.ModeBind {
		fmt.Fprintln(os.Stderr, "WARNING: the agent writes to the workspace itself. Programs of yours may run what it leaves there: build files, scripts, settings of editors, repositories below it. Of .git (so it cannot commit), .claude, .envrc and the like, what is there is read-only; what is not there it can make.")
	}
	if f.yes {
		return nil
	}
	return ask(ctx, "start this bottle?", "not started")
}

// ask fails, with what follows from it, unless somebody at the terminal says yes.
func ask(ctx context.Context, question, otherwise string) error {
	tty, err := openTerminal()
	if err != nil {
		return err
	}
	defer tty.Close()
	if _, err := fmt.Fprint(tty, question+" [y/N] "); err != nil {
		return err
	}
	switch strings.ToLower(readLine(ctx, tty)) {
	case "y", "yes":
		return nil
	default:
		return errors.New(otherwise)
	}
}

// openTerminal is where the question is asked: stdin may be the agent's. The
// caller closes it.
func openTerminal() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	if !isTerminal(os.Stderr) { // the plan would not be seen
		return nil, errors.Join(errNoTerminal, tty.Close())
	}
	return tty, nil
}

var errNoTerminal = fmt.Errorf("there is no terminal to ask on: use --yes: %w", errdefs.ErrInvalidArgument)

// checkTerminal is for the time before anything is made.
func (f *runFlags) checkTerminal() error {
	if f.yes {
		return nil
	}
	tty, err := openTerminal()
	if err != nil {
		return err
	}
	return tty.Close()
}

// readLine returns an empty line when ctx ends first.
func readLine(ctx context.Context, r io.Reader) string {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(r).ReadString('\n') // no answer is a no
		line <- strings.TrimSpace(text)
	}()
	select {
	case text := <-line:
		return text
	case <-ctx.Done():
		return ""
	}
}

func printTimings(w io.Writer, steps []runtime.Step) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "begin\ttook\t  step")
	for _, s := range steps {
		_, _ = fmt.Fprintf(t, "%s\t%s\t  %s\n", millis(s.Begin), millis(s.Took), s.Name)
	}
	_ = t.Flush() // stderr may be closed
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
