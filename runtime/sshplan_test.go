package runtime

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/manifest"
)

const hostKeyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

func withBottle(b manifest.Bottle) Request {
	b.Image, b.Source = "busybox", "/etc/carboy/bottles/dev.yaml"
	return Request{Agent: &manifest.Agent{Name: "a"}, Bottle: &b, Lookup: environ(nil)}
}

func TestPlanOfSSH(t *testing.T) {
	p := mustPlan(t, withBottle(manifest.Bottle{
		Egress: manifest.Egress{Allow: []manifest.Allowed{{Host: "a.test"}}},
		SSH: []manifest.SSH{
			{Host: "Git", HostName: "git.test", Port: 2222, User: "git", Key: "/keys/deploy", KnownHosts: []string{hostKeyLine + " a comment"}},
			{Host: "web.test", KnownHosts: []string{hostKeyLine}},
			{Host: "three", Key: "~/.ssh/id", KnownHosts: []string{hostKeyLine}},
			{Host: "four", Key: "agent:x", KnownHosts: []string{hostKeyLine}},
		}}))
	if s := p.SSH[0]; s.Host != "git" || s.HostName != "git.test" || s.Port != 2222 || s.Key != "/keys/deploy" ||
		len(s.HostKeys) != 1 || !strings.HasPrefix(s.HostKeys[0], "SHA256:") {
		t.Errorf("%+v", s)
	}
	if s := p.SSH[1]; s.HostName != "web.test" || s.Port != 22 || s.Key != "agent" {
		t.Errorf("%+v", s)
	}
	if p.SSH[2].Key != "~/.ssh/id" || p.SSH[3].Key != "agent:x" {
		t.Errorf("%+v", p.SSH)
	}
	if want := []string{"a.test", "tcp:four:22", "tcp:git.test:2222", "tcp:three:22", "tcp:web.test:22"}; !slices.Equal(p.Allow, want) {
		t.Errorf("allowed: %q", p.Allow)
	}
	if _, err := p.policy.Decide("git.test", 2222); err != nil || !p.policy.Plain("git.test", 2222) {
		t.Errorf("the policy does not allow it: %v", err)
	}
	if err := p.checkKeys(nil); err == nil {
		t.Error("a start without keys")
	}
}

func TestSSHThatIsRefused(t *testing.T) {
	good := manifest.SSH{Host: "git", HostName: "git.test", KnownHosts: []string{hostKeyLine}}
	for name, tc := range map[string]struct {
		change func(*manifest.SSH)
		want   string
	}{
		"no known hosts":    {func(s *manifest.SSH) { s.KnownHosts = nil }, "`ssh-keyscan -p 22 git.test`"},
		"an option":         {func(s *manifest.SSH) { s.KnownHosts = []string{"git.test " + hostKeyLine} }, "a type and a key alone"},
		"two keys in one":   {func(s *manifest.SSH) { s.KnownHosts = []string{hostKeyLine + "\n" + hostKeyLine} }, "alone"},
		"no key":            {func(s *manifest.SSH) { s.KnownHosts = []string{""} }, "alone"},
		"a pattern":         {func(s *manifest.SSH) { s.Host = "*" }, "not a host name"},
		"more hosts":        {func(s *manifest.SSH) { s.Host = "a b" }, "blank"},
		"another directive": {func(s *manifest.SSH) { s.Host = "a\nProxyCommand x" }, "blank or control"},
		"a host name":       {func(s *manifest.SSH) { s.HostName = "-oProxyCommand=x" }, "hostname"},
		"a path":            {func(s *manifest.SSH) { s.HostName = "a/b" }, "hostname"},
		"a user":            {func(s *manifest.SSH) { s.User = "a\n  ProxyCommand x" }, "user"},
		"an option as user": {func(s *manifest.SSH) { s.User = "-x" }, "user"},
		"a control in key":  {func(s *manifest.SSH) { s.Key = "a\x1b[2J" }, "control character"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			tc.change(&bad)
			_, err := NewPlan(withBottle(manifest.Bottle{SSH: []manifest.SSH{bad}}))
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
	_, err := NewPlan(withBottle(manifest.Bottle{SSH: []manifest.SSH{good, good}}))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("twice: %v", err)
	}
	if _, err := NewPlan(withBottle(manifest.Bottle{SSH: []manifest.SSH{good}})); err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestPlanOfGit(t *testing.T) {
	if p := mustPlan(t, withBottle(manifest.Bottle{Git: manifest.Git{Name: "Bot"}})); p.Git == nil || p.Git.Name != "Bot" {
		t.Errorf("%+v", p.Git)
	}
	if p := mustPlan(t, withBottle(manifest.Bottle{})); p.Git != nil {
		t.Errorf("%+v", p.Git)
	}
	_, err := NewPlan(withBottle(manifest.Bottle{Git: manifest.Git{Email: "a\nb"}}))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "dev.yaml: git: control character") {
		t.Errorf("%v", err)
	}
}
