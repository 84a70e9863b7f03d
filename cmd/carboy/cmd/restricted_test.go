package cmd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"carboy/image/registry"
	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// asMember is a command line as a member of a restricted group has it.
func asMember(t *testing.T) (*cobra.Command, *settings) {
	t.Helper()
	before := os.Environ()
	t.Cleanup(func() {
		os.Clearenv()
		for _, variable := range before {
			name, value, _ := strings.Cut(variable, "=")
			_ = os.Setenv(name, value)
		}
	})
	s := &settings{restrict: func(context.Context, []string) (*restriction, error) {
		return &restriction{who: invoker.User{UID: 4321, Name: "dev"}, group: "agents"}, nil
	}}
	root := rootOf(s)
	root.SetOut(&strings.Builder{})
	root.SetErr(&strings.Builder{})
	return root, s
}

// called says whether a command line gets as far as its command, which is put
// out of action.
func called(t *testing.T, path string, flags ...string) (reached bool, err error) {
	t.Helper()
	root, _ := asMember(t)
	words := strings.Fields(path)
	c, _, err := root.Find(words)
	if err != nil {
		t.Fatal(err)
	}
	c.Args, c.PreRunE = nil, nil
	c.RunE = func(*cobra.Command, []string) error {
		reached = true
		return nil
	}
	root.SetArgs(append(words, flags...))
	return reached, root.ExecuteContext(t.Context())
}

// unheld are the commands that only print what is in this program.
var unheld = []string{"help", "completion", "completion bash", "completion fish", "completion powershell", "completion zsh", "version"}

// TestPermitted takes every command, and every flag of each, its own and the
// global ones: what is listed gets through, and all else is refused before the
// command is called.
func TestPermitted(t *testing.T) {
	root, _ := asMember(t)
	root.InitDefaultVersionFlag()
	var seen []string
	eachCommand(root, func(c *cobra.Command) {
		path := commandPath(c)
		if own := c.PersistentPreRunE != nil || c.HasParent() && c.Parent().Name() == "completion"; own && c.HasParent() {
			seen = append(seen, path)
			return
		}
		flags, ok := permitted[path]
		check(t, ok, path)
		c.InitDefaultHelpFlag()
		visit := func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "version" { // which print, and call nothing
				check(t, slices.Contains(flags, f.Name), path, "--"+f.Name+"="+sampleOf(f))
			}
		}
		c.LocalFlags().VisitAll(visit)
		c.InheritedFlags().VisitAll(visit)
	})
	slices.Sort(seen)
	if want := slices.Sorted(slices.Values(unheld)); !slices.Equal(seen, want) {
		t.Errorf("not held: %q, want %q", seen, want)
	}
}

func check(t *testing.T, want bool, path string, flags ...string) {
	t.Helper()
	reached, err := called(t, path, flags...)
	if reached != want || want && err != nil {
		t.Errorf("carboy %s %q: called %v, want %v (%v)", path, flags, reached, want, err)
	}
	if want {
		return
	}
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "group agents may not use") || !strings.Contains(err.Error(), "restricted_groups in "+configFile) {
		t.Errorf("carboy %s %q: %v", path, flags, err)
	}
	for _, flag := range flags {
		if name, _, _ := strings.Cut(flag, "="); err != nil && permitted[path] != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("it does not name %s: %v", name, err)
		}
	}
}

func sampleOf(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true"
	case "duration":
		return "1s"
	case "int", "int64", "float64":
		return "1"
	}
	return f.DefValue
}

// TestPermittedIsThere finds what the list permits and nobody has.
func TestPermittedIsThere(t *testing.T) {
	root := newRoot()
	for path, flags := range permitted {
		c, _, err := root.Find(strings.Fields(path))
		if err != nil || commandPath(c) != path {
			t.Errorf("no command %q: %v", path, err)
			continue
		}
		for _, name := range flags {
			if c.Flags().Lookup(name) == nil {
				t.Errorf("carboy %s has no --%s", path, name)
			}
		}
	}
}

// TestCompletionIsNotPermitted, as it lists what is there; a member's shell asks
// without sudo.
func TestCompletionIsNotPermitted(t *testing.T) {
	root, _ := asMember(t)
	root.SetArgs([]string{cobra.ShellCompRequestCmd, "run", "--image", ""})
	if err := root.ExecuteContext(t.Context()); !errdefs.IsPermissionDenied(err) {
		t.Errorf("%v", err)
	}
}

// TestRestrictedEnvironment: of what a member sets, nothing chooses what root's
// process does, and all of it can be forwarded.
func TestRestrictedEnvironment(t *testing.T) {
	root, s := asMember(t)
	hostile := []string{
		"CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE", "CONTAINERD_SNAPSHOTTER", "CARBOY_CNI_BIN_DIR", "CARBOY_CNI_CONF_DIR", "CARBOY_STATE_DIR", "CARBOY_LOG_DIR",
		"CARBOY_DATA_DIR", "CARBOY_LOG_LEVEL", "CARBOY_EGRESS_RANGE", "CARBOY_EGRESS_NETWORK", "DOCKER_CONFIG", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET",
		"XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "HOME", "VISUAL", "EDITOR", "PIPELOCK", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "LD_PRELOAD",
	}
	for _, name := range hostile {
		t.Setenv(name, "/of/dev")
	}
	t.Setenv("PATH", "/of/dev")
	t.Setenv("TERM", "vt100")
	c, _, err := root.Find([]string{"ls"})
	if err != nil {
		t.Fatal(err)
	}
	c.SetContext(t.Context())
	if err := s.load(c); err != nil {
		t.Fatal(err)
	}
	for _, name := range hostile {
		if value, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left", name, value)
		}
		if value, ok := s.lookup(name); !ok || value != "/of/dev" {
			t.Errorf("%s cannot be forwarded: %q", name, value)
		}
	}
	if os.Getenv("PATH") != ownPath || os.Getenv("TERM") != "vt100" {
		t.Errorf("%q", os.Environ())
	}
	for _, o := range s.all {
		if o.value == "/of/dev" {
			t.Errorf("%s is %s by %s", o.name, o.value, o.source)
		}
	}
	if config, err := s.config(); err != nil || config.OnlyOf == nil || *config.OnlyOf != 4321 {
		t.Errorf("%+v, %v", config, err)
	}
}

// TestRestrictedLogins: no program of a member's is asked for those with which an
// operator's images are pulled.
func TestRestrictedLogins(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: sudo go test ./cmd/carboy/cmd")
	}
	_, s := asMember(t)
	t.Setenv("SUDO_UID", "65534")
	nobody, err := invoker.Current()
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(nobody.Home, ".docker/config.json")
	for _, held := range []*restriction{nil, {who: nobody, group: "agents"}} {
		s.held = held
		sources, err := s.logins()
		if err != nil || len(sources) == 0 {
			t.Fatalf("%v, %v", sources, err)
		}
		if asked := slices.ContainsFunc(sources, func(l registry.Source) bool { return l.Path == own }); asked != (held == nil) {
			t.Errorf("held: %v: %v", held != nil, sources)
		}
	}
}

func TestRestrictedPlan(t *testing.T) {
	held := &restriction{group: "agents"}
	if err := held.checkAgent(""); !errdefs.IsPermissionDenied(err) {
		t.Errorf("no agent: %v", err)
	}
	for mode, ok := range map[string]bool{runtime.ModeCopy: true, runtime.ModeOverlay: false, runtime.ModeBind: false} {
		p := &runtime.Plan{Workspace: &runtime.WorkspacePlan{Mode: mode}}
		if err := held.checkPlan(p); errdefs.IsPermissionDenied(err) == ok {
			t.Errorf("%s: %v", mode, err)
		}
		var free *restriction
		if err := free.checkPlan(p); err != nil {
			t.Errorf("%s of anybody else: %v", mode, err)
		}
	}
	for _, dir := range held.dirs() {
		if dir.Project || dir.NoAgents == (dir.Path == manifest.OperatorDir) {
			t.Errorf("%+v", dir)
		}
	}
}

// TestRestrictionOf needs root, as what is decided is what root's rights are
// used for.
func TestRestrictionOf(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: sudo go test ./cmd/carboy/cmd")
	}
	for _, tt := range []struct {
		uid    string
		groups []string
		group  string
		fails  bool
	}{
		{"65534", nil, "", false},
		{"65534", []string{"daemon"}, "", false},
		{"65534", []string{"daemon", "nogroup"}, "nogroup", false},
		{"65534", []string{"nogroup", "no-such-group"}, "", true},
		{"1999999999", []string{"daemon"}, "", true}, // a user whose groups nobody knows
		{"nobody", []string{"daemon"}, "", true},
		{"", []string{"root", "no-such-group"}, "", false}, // root itself
		{"0", []string{"root", "no-such-group"}, "", false},
	} {
		t.Setenv("SUDO_UID", tt.uid)
		r, err := restrictionOf(t.Context(), tt.groups)
		if (err != nil) != tt.fails || (r != nil) != (tt.group != "") || r != nil && r.group != tt.group {
			t.Errorf("%+v: %+v, %v", tt, r, err)
		}
	}
}
