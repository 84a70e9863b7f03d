package presets

import (
	"net/url"
	"testing"

	"carboy/runtime/proxy/policy"
)

func TestPresets(t *testing.T) {
	for _, name := range []string{"claude", "codex", "npm", "pypi", "go", "debian", "github"} {
		p, ok := Find(name)
		if !ok || p.About == "" || len(p.Hosts) == 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for _, name := range Names() {
		p, _ := Find(name)
		for _, h := range p.Hosts {
			pattern, err := policy.ParsePattern(h.Host)
			if err != nil || pattern.String() != h.Host {
				t.Errorf("%s: host %q: %v", name, h.Host, err)
			}
			if u, err := url.Parse(h.Source); err != nil || u.Scheme != "https" || u.Host == "" || h.For == "" {
				t.Errorf("%s: %s has no source, or nothing that it is for", name, h.Host)
			}
		}
	}
	for _, name := range []string{"", "nope", "../claude", "claude.yaml", "presets"} {
		if p, ok := Find(name); ok {
			t.Errorf("%q is %+v", name, p)
		}
	}
}
