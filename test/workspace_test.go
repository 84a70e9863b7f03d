package test

import (
	"os"
	"path/filepath"
	"testing"
)

// project makes a directory with files, by their paths.
func project(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(dir, name), text)
	}
	return dir
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestWorkspaceCopy is the life of a project: an agent changes a copy, the
// changes are shown, and the next agent begins with the project as it is.
func TestWorkspaceCopy(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, runtime := range runtimes {
			dir := project(t, map[string]string{"README": "hello\n", "src/main.go": "package main\n", "src/old.go": "package old\n"})
			work := bottle("--runtime", runtime, "--name", "worker", "--workspace", dir)
			o := r.run(t, append(work, "--", "sh", "-c", "pwd; id -u; cat README; echo more >>README; rm src/old.go; mkdir new; echo x >new/file")...)
			if o.code != 0 || o.stdout != "/workspace\n1000\nhello\n" {
				t.Fatalf("%s: %v", runtime, o)
			}
			if got, want := r.mustRun(t, "diff", "worker"), "M README\nA new/\nA new/file\nD src/old.go\n"; got != want {
				t.Errorf("%s: diff is %q, want %q", runtime, got, want)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "README")); string(text) != "hello\n" {
				t.Errorf("%s: the project was written to: %q, %v", runtime, text, err)
			}
			r.mustRun(t, "rm", "worker")
			put(t, filepath.Join(dir, "README"), "changed\n")
			o = r.run(t, append(work, "--", "sh", "-c", "cat README src/old.go")...)
			if o.code != 0 || o.stdout != "changed\npackage old\n" {
				t.Errorf("%s: after a change: %v", runtime, o)
			}
		}
		r.mustRun(t, "workspace", "prune")
	})
}
