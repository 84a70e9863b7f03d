package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

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
	r.Lookup, r.Stored = s.lookup, stored(who)
	var asked manifest.Proxy
	if err := f.findWorkspace(&r.Workspace); err != nil {
		return nil, err
	}
	if err := s.held.checkAgent(agent); err != nil {
		return nil, err
	}
	if agent != "" {
		a, b, err := manifest.Find(s.manifestDirs(who, r.Workspace.Directory), agent)
		if err != nil {
			return nil, s.held.explain(err)
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
	p, err := runtime.NewPlan(r)
	if err == nil {
		err = s.held.checkPlan(p)
	}
	if err == nil && f.headless && !p.HasTask && p.Provider != provision.Generic && len(p.Command) == 0 {
		return nil, fmt.Errorf("--headless: without a person %s needs a task: --prompt TEXT: %w", p.Provider, errdefs.ErrInvalidArgument)
	}
	return p, err
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
