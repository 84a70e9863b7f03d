package cmd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// TestValidateFileReads what is no manifest of the operator's as who asks.
func TestValidateFileReads(t *testing.T) {
	top := t.TempDir()
	for _, name := range []string{"keys/creds.yaml", "bottles/dev.yaml", "agents/a.md", "skills/x/agents/b.md"} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var asRoot []string
	caller := invoker.User{UID: os.Geteuid()}
	operator := manifest.Dir{Path: top, List: listDir(caller), ReadFile: func(path string, limit int64) ([]byte, error) {
		asRoot = append(asRoot, path)
		return caller.ReadFile(path, limit)
	}}
	v := validation{who: caller, dirs: []manifest.Dir{operator}}
	for _, name := range []string{"keys/creds.yaml", "agents/../keys/creds.yaml", "skills/x/agents/b.md", "bottles/dev.yaml", "agents/a.md"} {
		if _, err := v.file(top + "/" + name); err == nil {
			t.Errorf("%s is valid", name)
		}
	}
	if want := []string{filepath.Join(top, "bottles/dev.yaml"), filepath.Join(top, "agents/a.md")}; !slices.Equal(asRoot, want) {
		t.Errorf("read as root: %q", asRoot)
	}
}
