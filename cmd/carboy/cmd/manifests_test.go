package cmd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// TestProjectFiles: nothing of a project leads out of it, waits, or is too long.
func TestProjectFiles(t *testing.T) {
	top := t.TempDir()
	outside := filepath.Join(t.TempDir(), "agents")
	agents := filepath.Join(top, projectDir, "agents")
	for _, dir := range []string{outside, agents, filepath.Join(agents, "dir.md")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const text = "---\nbottle: x\n---\n"
	for path, content := range map[string]string{
		filepath.Join(outside, "out.md"): text, filepath.Join(agents, "good.md"): text, filepath.Join(agents, "long.md"): strings.Repeat("x", 2<<20),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"abs.md": outside + "/out.md", "up.md": "../../../good.md", "same.md": "good.md", "proc.md": "/proc/self/environ"} {
		if err := os.Symlink(target, filepath.Join(agents, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(agents, "fifo.md"), 0o600); err != nil {
		t.Fatal(err)
	}
	who := invoker.User{UID: os.Geteuid()}
	d := projectFiles{who, top}.dir()
	if b, err := d.ReadFile(filepath.Join(d.Path, "agents/good.md"), 100); err != nil || string(b) != text {
		t.Errorf("%q, %v", b, err)
	}
	for _, name := range []string{"abs", "up", "same", "proc", "fifo", "dir", "long", "../../out"} {
		if b, err := d.ReadFile(filepath.Join(d.Path, "agents", name+".md"), 1<<20); err == nil || errors.Is(err, fs.ErrNotExist) != (name == "../../out") {
			t.Errorf("%s: %.50q, %v", name, b, err)
		}
	}
	if names, err := d.List(filepath.Join(d.Path, "agents"), 100); err != nil || len(names) != 8 {
		t.Errorf("%q, %v", names, err)
	}
	if names, err := d.List(filepath.Join(d.Path, "agents"), 3); err != nil || len(names) != 3 {
		t.Errorf("more than asked for: %q, %v", names, err)
	}
}

// TestProjectDirThatIsALink: .carboy itself leads nowhere either.
func TestProjectDirThatIsALink(t *testing.T) {
	top, other := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(other, "agents"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "agents/a.md"), []byte("---\nbottle: x\n---\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(top, projectDir)); err != nil {
		t.Fatal(err)
	}
	d := projectFiles{invoker.User{UID: os.Geteuid()}, top}.dir()
	if _, _, err := manifest.Find([]manifest.Dir{d}, "a"); err == nil || !strings.Contains(err.Error(), "no link is followed") {
		t.Error(err)
	}
	if _, err := manifest.List([]manifest.Dir{d}); err == nil {
		t.Error("the directory behind a link is listed")
	}
}
