package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/manifest"
	"carboy/runtime/proxy"
)

func TestReadConfig(t *testing.T) {
	known := []string{"address", "dns", "proxy"}
	for _, tt := range []struct{ name, text, want, err string }{
		{"empty", "", "", ""},
		{"comment", "# nothing\n", "", ""},
		{"values", "address: /a\ndns: [10.0.0.1, 10.0.0.2]\nproxy: allowlist\n", "/a|10.0.0.1,10.0.0.2|allowlist", ""},
		{"other spellings", "\"address\": '/a b'\ndns:\n  - 10.0.0.1\n", "/a b|10.0.0.1|", ""},
		{"number", "address: 017\n", "017||", ""},
		{"unknown key", "address: /a\naddrss: /b\n", "", `:2: unknown key "addrss" (did you mean "address"?): known are address, dns, proxy`},
		{"key that is far from all", "color: red\n", "", `:1: unknown key "color": known`},
		{"key twice", "dns: []\ndns: []\n", "", `:2: mapping key "dns" already defined`},
		{"null", "\nproxy:\n", "", ":2: proxy: give one value"},
		{"mapping", "proxy:\n  engine: allowlist\n", "", ":1: proxy: give one value"},
		{"alias", "address: &a /x\nproxy: *a\n", "", ":1: address: give one value"},
		{"mapping in a list", "dns: [{a: b}]\n", "", ":1: dns: give one value"},
		{"list", "- address\n", "", ":1: give keys and values"},
		{"text", "allowlist\n", "", ":1: give keys and values"},
		{"second document", "proxy: pipelock\n---\nproxy: allowlist\n", "", ":3: give keys and values"},
		{"not YAML", "dns: [a\n", "", ":1: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readConfig(path, known)
			if tt.err != "" {
				if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), path+tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if text := strings.Trim(got["address"]+"|"+got["dns"]+"|"+got["proxy"], "|"); err != nil || text != strings.Trim(tt.want, "|") {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
	if got, err := readConfig(filepath.Join(t.TempDir(), "none"), known); err != nil || len(got) != 0 {
		t.Errorf("missing file: %v, %v", got, err)
	}
}

// parsed are the settings of a command line over a file.
func parsed(t *testing.T, file map[string]string, args ...string) *settings {
	t.Helper()
	s := &settings{}
	c := &cobra.Command{}
	s.register(c)
	(&runFlags{}).register(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	for _, o := range s.all {
		o.settle(c.Flags().Lookup(o.name), file)
	}
	return s
}

func TestFlagOverEnvironmentOverFileOverDefault(t *testing.T) {
	file := map[string]string{"log-level": "error", "dns": "10.0.0.1,10.0.0.2"}
	t.Setenv("CARBOY_LOG_LEVEL", "")
	for _, tt := range []struct{ env, flag, value, source string }{
		{"", "", "error", configFile},
		{"info", "", "info", "$CARBOY_LOG_LEVEL"},
		{"info", "--log-level=debug", "debug", "--log-level"},
		{"", "--log-level=warn", "warn", "--log-level"}, // the default's value, but given
	} {
		t.Setenv("CARBOY_LOG_LEVEL", tt.env)
		o := parsed(t, file, strings.Fields(tt.flag)...).find("log-level")
		if o.value != tt.value || o.source != tt.source {
			t.Errorf("%+v: %s (%s)", tt, o.value, o.source)
		}
	}
	s := parsed(t, file)
	if got := s.list("dns"); len(got) != 2 || got[1] != "10.0.0.2" {
		t.Errorf("list of the file %q", got)
	}
	if o := s.find("log-format"); o.value != "text" || o.source != "default" {
		t.Errorf("default %+v", o)
	}
}

func TestChooseProxy(t *testing.T) {
	operator := map[string]string{"proxy": "allowlist", "proxy-image": "op:1"}
	for _, tt := range []struct {
		name          string
		file          map[string]string
		args          string
		asked         manifest.Proxy
		binary        string
		engine, image string
	}{
		{"nothing", nil, "", manifest.Proxy{}, "", proxy.Pipelock, proxy.PipelockImage},
		{"operator's default", operator, "", manifest.Proxy{}, "", "allowlist", ""},
		{"flag over operator", operator, "--proxy pipelock", manifest.Proxy{}, "", "pipelock", "op:1"},
		{"manifest over operator", operator, "", manifest.Proxy{Engine: "pipelock"}, "", "pipelock", "op:1"},
		{"manifest's image", nil, "", manifest.Proxy{Image: "m:1"}, "", "pipelock", "m:1"},
		{"flag over manifest", nil, "--proxy-image f:1", manifest.Proxy{Image: "m:1"}, "", "pipelock", "f:1"},
		{"engine's flag over manifest", nil, "--proxy allowlist", manifest.Proxy{Engine: "pipelock", Image: "m:1"}, "", "allowlist", ""},
		{"binary over images", nil, "", manifest.Proxy{Image: "m:1"}, "/p", "pipelock", ""},
		{"a contradiction is kept to be refused", nil, "--proxy allowlist --proxy-image f:1", manifest.Proxy{}, "", "allowlist", "f:1"},
		{"another contradiction", nil, "--proxy-image f:1", manifest.Proxy{}, "/p", "pipelock", "f:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			engine, image := chooseProxy(parsed(t, tt.file, strings.Fields(tt.args)...), tt.asked, tt.binary)
			if engine != tt.engine || image != tt.image {
				t.Errorf("got %s, %s", engine, image)
			}
		})
	}
}
