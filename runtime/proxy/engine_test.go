package proxy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

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
	files, err := allowlist().Files(want, listen)
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

func TestAllowlistOfNothing(t *testing.T) {
	files, err := allowlist().Files(policy.Policy{}, listen)
	if err != nil {
		t.Fatal(err)
	}
	var got policy.Policy
	if err := json.Unmarshal(files["policy.json"], &got); err != nil || len(got.Allow)+len(got.Private) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// pipelockYAML is what is written, as a program would read it.
func pipelockYAML(t *testing.T, p policy.Policy) map[string]any {
	t.Helper()
	files, err := pipelock().Files(p, listen)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(files["pipelock.yaml"], &config); err != nil {
		t.Fatal(err)
	}
	return config
}

// at looks a.b.c up.
func at(config map[string]any, path string) any {
	var v any = config
	for key := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func texts(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, item := range list {
		text, _ := item.(string)
		out = append(out, text)
	}
	return out
}

func TestPipelockConfiguration(t *testing.T) {
	config := pipelockYAML(t, policyOf(t, "10.1.2.3/32", "b.test", "*.a.test:8443", "tcp:git.test:22"))
	for path, want := range map[string]any{
		"mode": "strict", "enforce": true, "version": uint64(1),
		"forward_proxy.enabled": true, "forward_proxy.sni_verification": true,
		"fetch_proxy.listen":      "10.66.0.1:8888",
		"websocket_proxy.enabled": false, "tls_interception.enabled": false, "kill_switch.enabled": false,
		"dlp.include_defaults": true, "dlp.scan_env": false,
		"request_body_scanning.enabled": true, "request_body_scanning.action": "block", "response_scanning.enabled": true,
		"metrics_listen": "127.0.0.1:9091",
		"logging.format": "json", "logging.output": "stdout",
	} {
		if got := at(config, path); got != want {
			t.Errorf("%s: %v (%T), want %v", path, got, got, want)
		}
	}
	if got := texts(config["api_allowlist"]); !slices.Equal(got, []string{"*.a.test", "b.test", "git.test"}) {
		t.Errorf("hosts %v", got)
	}
	if got := texts(at(config, "ssrf.ip_allowlist")); !slices.Equal(got, []string{"10.1.2.3/32"}) {
		t.Errorf("private addresses %v", got)
	}
	if n, _ := at(config, "forward_proxy.max_tunnel_seconds").(uint64); n < 24*3600 {
		t.Errorf("tunnels end after %d s", n)
	}
	if n, _ := at(config, "fetch_proxy.monitoring.max_requests_per_minute").(uint64); n < 10_000 {
		t.Errorf("%d requests a minute", n)
	}
}

func TestPipelockOfNothing(t *testing.T) {
	config := pipelockYAML(t, policy.Policy{})
	if got := texts(config["api_allowlist"]); len(got) != 1 || !strings.HasSuffix(got[0], ".invalid") {
		t.Errorf("hosts %v", got)
	}
	if got, ok := at(config, "ssrf.ip_allowlist").([]any); !ok || len(got) != 0 {
		t.Errorf("private addresses %v", at(config, "ssrf.ip_allowlist"))
	}
	if config["mode"] != "strict" || config["enforce"] != true {
		t.Errorf("%v", config)
	}
}

func TestConfigurationIsStable(t *testing.T) {
	p := policyOf(t, "10.1.2.3/32", "b.test", "a.test")
	for _, e := range []Engine{pipelock(), allowlist()} {
		first, err := e.Files(p, listen)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			again, err := e.Files(p, listen)
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
