package proxy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"carboy/runtime/bottlespec"
	"carboy/runtime/proxy/policy"
)

var listen = netip.MustParseAddrPort("10.66.0.1:8888")

func policyOf(t *testing.T, private string, patterns ...string) policy.Policy {
	t.Helper()
	var p policy.Policy
	for _, text := range patterns {
		pattern, err := policy.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		p.Allow = append(p.Allow, pattern)
	}
	for _, text := range strings.Fields(private) {
		p.Private = append(p.Private, netip.MustParsePrefix(text))
	}
	return p
}

func TestNewKnowsItsEngines(t *testing.T) {
	for name, binary := range map[string]string{Pipelock: "/pipelock", Allowlist: "/carboy-egress"} {
		e, err := New(name)
		if err != nil || e.Name != name || e.Path != binary || e.Command(listen)[0] != binary {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		if !slices.Contains(e.Command(listen), listen.String()) {
			t.Errorf("%s listens elsewhere: %q", name, e.Command(listen))
		}
		if !strings.Contains(strings.Join(e.Command(listen), " "), bottlespec.ConfigDir) {
			t.Errorf("%s reads elsewhere: %q", name, e.Command(listen))
		}
	}
	for _, name := range []string{"", "squid", "Pipelock"} {
		if _, err := New(name); err == nil {
			t.Errorf("engine %q", name)
		}
	}
}

func TestAllowlistConfiguration(t *testing.T) {
	want := policyOf(t, "10.1.2.3/32 192.168.0.0/16", "b.test", "*.a.test:8443", "tcp:git.test:22")
	files, err := allowlist().Files(Config{Policy: want, Listen: listen})
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var got policy.Policy
	if err := json.Unmarshal(files["policy.json"], &got); err != nil {
		t.Fatalf("the engine would not read it: %v", err)
	}
	for _, tt := range []struct {
		host string
		port uint16
		ok   bool
	}{
		{"b.test", 443, true}, {"b.test", 80, true}, {"b.test", 22, false}, {"x.b.test", 443, false},
		{"x.a.test", 8443, true}, {"x.a.test", 443, false}, {"a.test", 8443, false}, {"git.test", 22, true}, {"git.test", 443, false},
	} {
		if _, err := got.Decide(tt.host, tt.port); (err == nil) != tt.ok {
			t.Errorf("%s:%d: %v", tt.host, tt.port, err)
		}
	}
	for addr, ok := range map[string]bool{"10.1.2.3": true, "192.168.7.7": true, "10.1.2.4": false, "169.254.169.254": false} {
		if err := got.Permit(netip.MustParseAddr(addr)); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestAllowlistReadsNoContent(t *testing.T) {
	p := policyOf(t, "", "a.test")
	p.Intercept = p.Allow
	for _, c := range []Config{{Policy: p}, {Known: true}} {
		if files, err := allowlist().Files(c); err == nil {
			t.Errorf("%+v is rendered: %s", c, files)
		}
	}
	files, err := allowlist().Held(Secrets{Key: []byte("key"), Known: []string{"12345678"}}, "1:1")
	if err != nil || len(files) != 0 {
		t.Errorf("it is given %v, %v", files, err)
	}
}

func TestAllowlistOfNothing(t *testing.T) {
	files, err := allowlist().Files(Config{Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	var got policy.Policy
	if err := json.Unmarshal(files["policy.json"], &got); err != nil || len(got.Allow)+len(got.Private) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestConfigurationIsStable(t *testing.T) {
	c := Config{Policy: policyOf(t, "10.1.2.3/32", "b.test", "a.test"), Listen: listen}
	for _, e := range []Engine{pipelock(), allowlist()} {
		first, err := e.Files(c)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			again, err := e.Files(c)
			if err != nil {
				t.Fatal(err)
			}
			for name := range first {
				if string(first[name]) != string(again[name]) {
					t.Fatalf("%s of %s changes:\n%s\n%s", name, e.Name, first[name], again[name])
				}
			}
		}
	}
}
