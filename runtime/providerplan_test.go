package runtime

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/manifest"
	"carboy/runtime/provision"
)

// TestProviderAndCommand: what only the provider's program would be told is
// refused beside a manifest's command, and not shown beside a caller's.
func TestProviderAndCommand(t *testing.T) {
	all := manifest.Agent{Name: "a", Source: "/a.md", Provider: provision.Claude, Model: "opus", Permissions: "plan", Args: []string{"--verbose"}}
	request := func(a manifest.Agent, command ...string) Request {
		return Request{Agent: &a, Bottle: &manifest.Bottle{Image: "x"}, Command: command, Lookup: environ(nil)}
	}
	if p := mustPlan(t, request(all)); p.Model != "opus" || p.Permissions != "plan" || !slices.Contains(p.provision.Command(), "--verbose") {
		t.Errorf("the provider's program: %+v", p)
	}
	if p := mustPlan(t, request(all, "sh")); p.Model != "" || p.Permissions != "" || p.Provider != provision.Claude {
		t.Errorf("the caller's command: %+v", p)
	}
	flag := request(manifest.Agent{Provider: provision.Claude}, "sh")
	flag.Model = "opus"
	if _, err := NewPlan(flag); !errdefs.IsInvalidArgument(err) {
		t.Errorf("the caller's command and model: %v", err)
	}
	for key, change := range map[string]func(*manifest.Agent){
		"permissions": func(a *manifest.Agent) { a.Permissions = "plan" },
		"model":       func(a *manifest.Agent) { a.Model = "opus" },
		"args":        func(a *manifest.Agent) { a.Args = []string{"x"} },
		"":            func(*manifest.Agent) {},
	} {
		a := manifest.Agent{Source: "/a.md", Provider: provision.Claude, Command: []string{"claude"}}
		change(&a)
		_, err := NewPlan(request(a, "sh"))
		if key == "" && err != nil || key != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "/a.md: "+key+" is for")) {
			t.Errorf("%q: %v", key, err)
		}
	}
}
