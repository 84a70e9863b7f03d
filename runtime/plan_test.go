package runtime

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/manifest"
	"carboy/runtime/proxy"
)

// environ is a caller's environment.
func environ(m map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

func mustPlan(t *testing.T, r Request) *Plan {
	t.Helper()
	if r.Lookup == nil {
		r.Lookup = environ(nil)
	}
	p, err := NewPlan(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func fromManifests() Request {
	return Request{
		Agent: &manifest.Agent{Name: "rev.iewer", Source: "/a.md", Prompt: "Be careful.", Command: []string{"claude"},
			Env: map[string]string{"BOTH": "agent's", "AGENT": "${FROM}"}},
		Bottle: &manifest.Bottle{Image: "busybox", User: "node", Workdir: "/src", Runtime: "runc",
			Env:    map[string]string{"BOTH": "bottle's", "BOTTLE": "b"},
			Egress: manifest.Egress{Allow: []manifest.Allowed{{Host: "b.test"}, {Host: "a.test"}}, Private: []string{"10.1.2.3", "10.9.9.9/8"}},
			Proxy:  manifest.Proxy{Engine: proxy.Allowlist},
			Limits: manifest.Limits{Memory: "64MiB", CPUs: 0.5, Pids: 32}},
		Lookup: environ(map[string]string{"FROM": "caller's"}),
	}
}

func TestPlanOfDefaults(t *testing.T) {
	p := mustPlan(t, Request{Image: "busybox"})
	if p.Image != "docker.io/library/busybox:latest" || p.Name != "busybox" || p.Pinned || p.Runtime != "auto" || p.User != "" || len(p.Command) != 0 {
		t.Errorf("%+v", p)
	}
	if p.Proxy != (ProxyPlan{Engine: proxy.Pipelock, Image: proxy.PipelockImage}) {
		t.Errorf("proxy %+v", p.Proxy)
	}
	if p.Limits.Pids != defaultPids || p.Limits.CPUs != 0 || p.Limits.Memory <= 0 || p.Limits.Memory > maxMemory {
		t.Errorf("limits %+v", p.Limits)
	}
	if len(p.policy.Allow) != 0 || len(p.policy.Private) != 0 {
		t.Errorf("a plan of nothing allows %+v", p.policy)
	}
}

func TestPlanOfManifests(t *testing.T) {
	p := mustPlan(t, fromManifests())
	if p.Agent != "rev.iewer" || p.Name != "rev-iewer" || p.Source != "/a.md" || !p.HasPrompt || p.provision.Prompt != "Be careful." {
		t.Errorf("agent %+v", p)
	}
	if p.User != "node" || p.Workdir != "/src" || p.Runtime != "runc" || p.Command[0] != "claude" || p.Proxy != (ProxyPlan{Engine: proxy.Allowlist}) {
		t.Errorf("bottle %+v", p)
	}
	if p.Limits != (PlanLimits{Memory: 64 << 20, CPUs: 0.5, Pids: 32, Disk: defaultDisk}) {
		t.Errorf("limits %+v", p.Limits)
	}
	if !maps.Equal(p.env, map[string]string{"BOTH": "agent's", "AGENT": "caller's", "BOTTLE": "b"}) {
		t.Errorf("environment %v", p.env)
	}
	if !slices.Equal(p.Allow, []string{"a.test", "b.test"}) || !slices.Equal(p.Private, []string{"10.0.0.0/8", "10.1.2.3/32"}) {
		t.Errorf("allow %v, private %v", p.Allow, p.Private)
	}
}

func TestFlagsWinOverManifests(t *testing.T) {
	r := fromManifests()
	r.Name, r.Image, r.Command, r.User, r.Workdir = "mine", "alpine:3", []string{"id"}, "0", "/"
	r.Runtime, r.Engine, r.ProxyBinary, r.Memory, r.CPUs, r.Pids, r.Disk = "runsc", proxy.Pipelock, "/p", "1g", 2, 99, "5GiB"
	r.Env, r.Allow = []string{"BOTH=flag's", "FROM"}, []string{"c.test", "a.test"}
	p := mustPlan(t, r)
	if p.Name != "mine" || !p.Pinned || p.Image != "docker.io/library/alpine:3" || p.Command[0] != "id" || p.User != "0" || p.Workdir != "/" || p.Runtime != "runsc" {
		t.Errorf("%+v", p)
	}
	if p.Proxy != (ProxyPlan{Engine: proxy.Pipelock, Binary: "/p"}) || p.Limits != (PlanLimits{Memory: 1 << 30, CPUs: 2, Pids: 99, Disk: 5 << 30}) {
		t.Errorf("%+v", p)
	}
	if p.env["BOTH"] != "flag's" || p.env["FROM"] != "caller's" || !slices.Equal(p.Env, []string{"AGENT", "BOTH", "BOTTLE", "FROM"}) {
		t.Errorf("environment %v", p.env)
	}
	if !slices.Equal(p.Allow, []string{"a.test", "b.test", "c.test"}) {
		t.Errorf("allow %v", p.Allow)
	}
}

func TestPlanPrintsNoValues(t *testing.T) {
	r := fromManifests()
	r.Env = []string{"TOKEN", "LITERAL=s3cret-2"}
	r.Lookup = environ(map[string]string{"FROM": "s3cret-1", "TOKEN": "s3cret-3"})
	b, err := json.Marshal(mustPlan(t, r))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"s3cret", "bottle's", "agent's", "Be careful"} {
		if strings.Contains(string(b), secret) {
			t.Errorf("%q is printed: %s", secret, b)
		}
	}
	if !strings.Contains(string(b), `"env":["AGENT","BOTH","BOTTLE","LITERAL","TOKEN"]`) {
		t.Errorf("%s", b)
	}
}

func TestPlanEmptyListsAreNotNull(t *testing.T) {
	b, err := json.Marshal(mustPlan(t, Request{Image: "busybox"}))
	if err != nil || strings.Contains(string(b), "null") {
		t.Errorf("%s, %v", b, err)
	}
}

func TestPlanNames(t *testing.T) {
	for _, tt := range []struct{ agent, image, want string }{
		{"reviewer", "x", "reviewer"},
		{"a.b_c", "x", "a-b-c"},
		{strings.Repeat("a", 40), "x", strings.Repeat("a", 36)},
		{strings.Repeat("a", 35) + ".b", "x", strings.Repeat("a", 35)},
		{"", "docker.io/library/busybox:1", "busybox"},
		{"", "registry.test:5000/team/my_agent@sha256:" + strings.Repeat("0", 64), "my-agent"},
		{"", "localhost/a__b", "a-b"},
	} {
		r := Request{Image: tt.image}
		if tt.agent != "" {
			r.Agent, r.Bottle = &manifest.Agent{Name: tt.agent}, &manifest.Bottle{}
		}
		p := mustPlan(t, r)
		names := p.names()
		if p.Name != tt.want || len(names) != 99 || names[1] != tt.want+"-2" || names[98] != tt.want+"-99" {
			t.Errorf("%+v: %s, %d names", tt, p.Name, len(names))
		}
		for _, n := range names {
			if !bottleName.MatchString(n) {
				t.Errorf("%q is no name of a bottle", n)
			}
		}
	}
	if names := mustPlan(t, Request{Image: "x", Name: "pinned"}).names(); !slices.Equal(names, []string{"pinned"}) {
		t.Errorf("pinned: %v", names)
	}
}

func TestPlanErrors(t *testing.T) {
	bottle := func(b manifest.Bottle) Request {
		b.Image = "x"
		return Request{Agent: &manifest.Agent{Name: "a"}, Bottle: &b}
	}
	for name, tt := range map[string]struct {
		r    Request
		want string
	}{
		"no image":             {Request{}, "no image"},
		"bad image":            {Request{Image: "A B"}, `image reference "A B"`},
		"bad proxy image":      {Request{Image: "x", ProxyImage: "A B"}, `image reference "A B"`},
		"bad name":             {Request{Image: "x", Name: "a/b"}, `name "a/b"`},
		"long name":            {Request{Image: "x", Name: strings.Repeat("a", 41)}, "at most 40"},
		"option as name":       {Request{Image: "x", Name: "-rf"}, `name "-rf"`},
		"engine":               {Request{Image: "x", Engine: "squid"}, "choose pipelock or allowlist"},
		"two origins":          {Request{Image: "x", ProxyImage: "y", ProxyBinary: "/z"}, "exclude each other"},
		"image of allowlist":   {Request{Image: "x", Engine: proxy.Allowlist, ProxyImage: "y"}, "for pipelock"},
		"binary of allowlist":  {Request{Image: "x", Engine: proxy.Allowlist, ProxyBinary: "/y"}, "for pipelock"},
		"runtime":              {Request{Image: "x", Runtime: "kata"}, "auto, runc or runsc"},
		"memory":               {Request{Image: "x", Memory: "lots"}, `memory "lots"`},
		"little memory":        {Request{Image: "x", Memory: "15m"}, "at least 16MiB"},
		"negative memory":      {Request{Image: "x", Memory: "-1g"}, `memory "-1g"`},
		"negative cpus":        {Request{Image: "x", CPUs: -1}, "cpus -1"},
		"few cpus":             {Request{Image: "x", CPUs: 0.001}, "cpus 0.001"},
		"cpus that are none":   {Request{Image: "x", CPUs: math.NaN()}, "cpus NaN"},
		"cpus without end":     {Request{Image: "x", CPUs: math.Inf(1)}, "cpus +Inf"},
		"no size of a disk":    {Request{Image: "x", Disk: "much"}, `disk "much"`},
		"small disk":           {bottle(manifest.Bottle{Limits: manifest.Limits{Disk: "1k"}}), `disk "1k"`},
		"negative pids":        {Request{Image: "x", Pids: -1}, "pids limit -1"},
		"manifest's pids":      {bottle(manifest.Bottle{Limits: manifest.Limits{Pids: 3}}), "pids limit 3"},
		"relative workdir":     {Request{Image: "x", Workdir: "src"}, `working directory "src"`},
		"pattern":              {Request{Image: "x", Allow: []string{"*"}}, `bad host pattern "*"`},
		"manifest's pattern":   {bottle(manifest.Bottle{Egress: manifest.Egress{Allow: []manifest.Allowed{{Host: "a b"}}}}), `bad host pattern "a b"`},
		"private name":         {bottle(manifest.Bottle{Egress: manifest.Egress{Private: []string{"db.local"}}}), `private address "db.local"`},
		"variable's name":      {Request{Image: "x", Env: []string{"A-B=c"}}, `name "A-B"`},
		"no variable's name":   {Request{Image: "x", Env: []string{"=c"}}, `name ""`},
		"NUL":                  {Request{Image: "x", Env: []string{"A=b\x00c"}}, "value of environment variable A holds a NUL"},
		"not forwarded":        {Request{Image: "x", Env: []string{"GONE"}}, "GONE is not set and cannot be forwarded"},
		"all not forwarded":    {Request{Image: "x", Env: []string{"GONE", "AWAY", "HERE=x"}}, "environment variables AWAY, GONE are not set and cannot be forwarded"},
		"all through sudo":     {Request{Image: "x", Env: []string{"GONE", "AWAY"}, Lookup: environ(map[string]string{"SUDO_UID": "1"})}, "`sudo --preserve-env=AWAY,GONE carboy"},
		"not through sudo":     {Request{Image: "x", Env: []string{"GONE"}, Lookup: environ(map[string]string{"SUDO_UID": "1"})}, "sudo --preserve-env=GONE"},
		"manifest's variable":  {bottle(manifest.Bottle{Env: map[string]string{"A": "${GONE}"}}), "GONE is not set"},
		"manifest's bad name":  {bottle(manifest.Bottle{Env: map[string]string{"A": "${}"}}), `name ""`},
		"credential's path":    {bottle(manifest.Bottle{Env: map[string]string{"A": "credential:../x"}}), `credential "../x"`},
		"no credential":        {bottle(manifest.Bottle{Secrets: map[string]string{"a": "credential:"}}), `credential ""`},
		"secret without value": {Request{Image: "x", Secrets: []string{"A"}}, `secret "A": give NAME=FILE`},
		"secret's name":        {Request{Image: "x", Secrets: []string{"a-b=f"}}, `name "a-b"`},
		"secret and variable":  {Request{Image: "x", Env: []string{"A=b"}, Secrets: []string{"A=f"}}, "A is given twice"},
		"preset":               {Request{Image: "x", Presets: []string{"clade"}}, `no preset "clade" (did you mean "claude"?)`},
		"manifest's own image": {Request{Agent: &manifest.Agent{Name: "a"}, Bottle: &manifest.Bottle{}}, "no image"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.r.Lookup == nil {
				tt.r.Lookup = environ(nil)
			}
			_, err := NewPlan(tt.r)
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAnErrorShowsNoValue(t *testing.T) {
	_, err := NewPlan(Request{Image: "x", Env: []string{"A=s3cret\x00"}, Lookup: environ(nil)})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}
