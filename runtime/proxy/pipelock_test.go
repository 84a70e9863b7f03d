package proxy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/goccy/go-yaml"

	"carboy/runtime/authority"
	"carboy/runtime/proxy/policy"
)

// pipelockYAML is what is written, as a program would read it.
func pipelockYAML(t *testing.T, c Config) map[string]any {
	t.Helper()
	c.Listen = listen
	files, err := pipelock().Files(c)
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
	config := pipelockYAML(t, Config{DLP: Block, Policy: policyOf(t, "10.1.2.3/32", "b.test", "*.a.test:8443", "tcp:git.test:22")})
	for path, want := range map[string]any{
		"mode": "strict", "enforce": true, "version": uint64(1),
		"forward_proxy.enabled": true, "forward_proxy.sni_verification": true,
		"fetch_proxy.listen":      "10.66.0.1:8888",
		"websocket_proxy.enabled": false, "tls_interception.enabled": false, "kill_switch.enabled": false,
		"dlp.include_defaults": true, "dlp.scan_env": false,
		"request_body_scanning.enabled": true, "request_body_scanning.action": "block", "request_body_scanning.header_mode": "all",
		"response_scanning.enabled": true, "response_scanning.action": "warn", "response_scanning.sse_streaming.action": "warn",
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
	if got := texts(at(config, "fetch_proxy.monitoring.blocklist")); !slices.Equal(got, []string{"a.test"}) {
		t.Errorf("blocked: %v", got)
	}
	if n, _ := at(config, "forward_proxy.max_tunnel_seconds").(uint64); n < 24*3600 {
		t.Errorf("tunnels end after %d s", n)
	}
	if n, _ := at(config, "fetch_proxy.timeout_seconds").(uint64); n < 600 {
		t.Errorf("responses end after %d s", n)
	}
	if n, _ := at(config, "fetch_proxy.monitoring.max_requests_per_minute").(uint64); n < 10_000 {
		t.Errorf("%d requests a minute", n)
	}
}

func TestPipelockOfNothing(t *testing.T) {
	config := pipelockYAML(t, Config{})
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

func TestPipelockDLP(t *testing.T) {
	for dlp, want := range map[string]string{"": "block", Block: "block", Warn: "warn"} {
		config := pipelockYAML(t, Config{DLP: dlp})
		if got := at(config, "request_body_scanning.action"); got != want {
			t.Errorf("dlp %q: %v", dlp, got)
		}
		if config["enforce"] != true || at(config, "dlp.secrets_file") != nil {
			t.Errorf("dlp %q: %v", dlp, config)
		}
	}
	if got := at(pipelockYAML(t, Config{Known: true}), "dlp.secrets_file"); got != heldKnown {
		t.Errorf("known secrets are in %v", got)
	}
}

func TestPipelockIntercepts(t *testing.T) {
	p := policyOf(t, "", "a.test", "*.b.test", "c.test:8443", "tcp:d.test:22")
	p.Intercept = []policy.Pattern{p.Allow[0], p.Allow[1]}
	config := pipelockYAML(t, Config{Policy: p})
	if at(config, "tls_interception.enabled") != true || at(config, "tls_interception.ca_key") != heldKey || at(config, "tls_interception.ca_cert") != heldCertificate {
		t.Errorf("%v", config["tls_interception"])
	}
	if got := texts(at(config, "tls_interception.passthrough_domains")); !slices.Equal(got, []string{"c.test", "d.test"}) {
		t.Errorf("%v pass through", got)
	}
}

func TestPipelockHeld(t *testing.T) {
	files, err := pipelock().Held(Secrets{Certificate: []byte("cert"), Key: []byte("key"), Known: []string{"s3cret-value"}}, "64000:64000")
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for i, want := range []string{heldCertificate + "cert", heldKey + "key", heldKnown + "s3cret-value\n"} {
		f := files[i]
		if f.Path+string(f.Data) != want || f.Owner != "64000:64000" || f.Mode != 0o400 {
			t.Errorf("%+v", f)
		}
	}
	if files, err := pipelock().Held(Secrets{}, "1:1"); err != nil || len(files) != 0 {
		t.Errorf("of nothing: %v, %v", files, err)
	}
}

func TestSecretLines(t *testing.T) {
	long := strings.Repeat("a", longestSecret) + strings.Repeat("b", 10)
	for _, tt := range []struct{ value, want string }{
		{"12345678", "12345678"},
		{"1234567", ""},
		{"  with blanks inside\t", "with blanks inside"},
		{"# not a comment", "not a comment"},
		{"##########", ""},
		{"-----BEGIN KEY-----\r\nabcdefgh\nxyz\n", "-----BEGIN KEY-----|abcdefgh"},
		{long, strings.Repeat("a", longestSecret) + "|bbbbbbbbbb"},
	} {
		if got := strings.Join(secretLines([]string{tt.value, tt.value}), "|"); got != tt.want {
			t.Errorf("%.50q: %.50q", tt.value, got)
		}
	}
	many := make([]string, mostSecrets+1)
	for i := range many {
		many[i] = strings.Repeat("x", 8+i)
	}
	if _, err := pipelock().Held(Secrets{Known: many}, "1:1"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("more than it takes: %v", err)
	}
}

// TestPipelockAccepts has pipelock check what is written for it.
func TestPipelockAccepts(t *testing.T) {
	binary := os.Getenv("PIPELOCK")
	if binary == "" {
		t.Skip("needs pipelock: $PIPELOCK names one")
	}
	for name, c := range accepted(t) {
		t.Run(name, func(t *testing.T) {
			if out, err := checked(t, binary, c, ""); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if out, err := checked(t, binary, c, "\nnonsense: true\n"); err == nil {
				t.Errorf("control: it accepts everything: %s", out)
			}
		})
	}
}

// accepted are configurations of every kind.
func accepted(t *testing.T) map[string]Config {
	t.Helper()
	usual := policyOf(t, "", "a.test", "*.b.test:8443", "tcp:c.test:22", "93.184.216.34")
	some, all, paused := usual, usual, usual
	paused.Paused = true
	some.Intercept, all.Intercept = usual.Allow[:2], []policy.Pattern{usual.Allow[0], usual.Allow[1], usual.Allow[3]}
	return map[string]Config{
		"nothing":          {},
		"usual":            {Policy: usual, DLP: Block},
		"private":          {Policy: policyOf(t, "10.1.2.3/32 192.168.0.0/16", "a.test"), DLP: Block},
		"warn":             {Policy: usual, DLP: Warn},
		"paused":           {Policy: paused, DLP: Block},
		"known":            {Policy: usual, DLP: Block, Known: true},
		"intercept some":   {Policy: some, DLP: Block},
		"intercept, known": {Policy: some, DLP: Warn, Known: true},
		"intercept all":    {Policy: all, DLP: Block, Known: true},
	}
}

// checked runs `pipelock check` on the configuration with what is held in
// memory moved to a directory.
func checked(t *testing.T, binary string, c Config, more string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	c.Listen = listen
	files, err := pipelock().Files(c)
	if err != nil {
		t.Fatal(err)
	}
	s := Secrets{Known: []string{"12345678"}}
	if len(c.Policy.Intercept) > 0 {
		ca, err := authority.New("test", c.Policy.Intercept, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.Certificate, s.Key = ca.Certificate, ca.Key
	}
	held, err := pipelock().Held(s, "0:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range held {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), f.Data, os.FileMode(f.Mode)); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.ReplaceAll(string(files["pipelock.yaml"]), heldDir, dir+"/") + more
	path := filepath.Join(dir, "pipelock.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), binary, "check", "--config", path).CombinedOutput()
	return string(out), err
}
