package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/egress"
)

func TestFindSaving(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SUDO_UID", "")
	shipped, err := installedDir("share")
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"":                                       "came from flags alone",
		"/elsewhere/bottles/b.yaml":              "no directory of yours",
		projectDir + "/bottles/b.yaml":           "no directory of yours",
		filepath.Join(shipped, "bottles/b.yaml"): "copy it to /etc/carboy/bottles",
	} {
		if _, err := findSaving(&settings{}, egress.View{Source: source}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// TestSaving: what changed meanwhile is not overwritten.
func TestSaving(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SUDO_UID", "")
	path := filepath.Join(home, ".config/carboy/bottles/b.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	prepared := func() *saving {
		t.Helper()
		write("egress: {presets: [npm]} # few\n")
		e, err := findSaving(&settings{}, egress.View{Source: path})
		if err != nil {
			t.Fatal(err)
		}
		e.s = nil // the engine is the default
		if err := e.prepare(egress.Request{Do: egress.Allow, Hosts: []string{"a.test"}}, egress.View{}); err != nil {
			t.Fatal(err)
		}
		return e
	}
	var out strings.Builder
	if err := prepared().run(&out); err != nil || out.String() != "saved "+path+"\n" {
		t.Errorf("%q, %v", &out, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "egress: {allow: [a.test], presets: [npm]} # few\n" {
		t.Errorf("%s, %v", text, err)
	}
	late := prepared()
	write("egress: {}\n")
	if err := late.run(&out); err == nil || !strings.Contains(err.Error(), "has changed meanwhile") {
		t.Error(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "egress: {}\n" {
		t.Errorf("%s, %v", text, err)
	}
	npm := prepared()
	if err := npm.prepare(egress.Request{Do: egress.Deny, Hosts: []string{"registry.npmjs.org"}}, egress.View{}); err == nil || !strings.Contains(err.Error(), "preset npm in "+path+":1") {
		t.Error(err)
	}
}
