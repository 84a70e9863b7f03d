package test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWorkspaceHeld: what apply asks about stays until the answer, whoever
// removes it meanwhile, and no longer, even when apply is killed.
func TestWorkspaceHeld(t *testing.T) {
	r := newRig(t, 1)
	dir := project(t, map[string]string{"b": "b\n"})
	work := append(bottle("--name", "worker", "--workspace", dir), "--", "sh", "-c", "echo a >a; rm b; mkdir c; echo d >c/d")
	ask := func() *session {
		t.Helper()
		if o := r.run(t, work...); o.code != 0 {
			t.Fatal(o)
		}
		s := r.open(t, "apply", "worker")
		s.shows(t, "write these changes? [y/N]")
		r.mustRun(t, "rm", "worker")
		if o := r.run(t, "diff", "worker"); o.code != 1 {
			t.Errorf("the result is still offered: %v", o)
		}
		return s
	}
	killed := ask()
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code := killed.ends(t); code != -1 {
		t.Errorf("exit status %d, want a signal", code)
	}
	r.mustRun(t, "gc")
	answered := ask()
	answered.typed(t, "y\n")
	if code := answered.ends(t); code != 0 {
		t.Errorf("exit status %d:\n%s", code, answered.screen.String())
	}
	for name, want := range map[string]string{"a": "a\n", "c/d": "d\n"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
			t.Errorf("%s is %q, want %q: %v", name, text, want, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "b")); err == nil {
		t.Error("b is there")
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceTouched: the end of a bottle compares what was opened for
// writing, but no hole.
func TestWorkspaceTouched(t *testing.T) {
	r := newRig(t, 1)
	dir := project(t, map[string]string{"disk.img": "begin"})
	if err := os.Truncate(filepath.Join(dir, "disk.img"), 150<<30); err != nil {
		t.Fatal(err)
	}
	if o := r.run(t, append(bottle("--name", "worker", "--workspace", dir), "--", "touch", "disk.img")...); o.code != 0 {
		t.Fatal(o)
	}
	if o := r.run(t, "diff", "worker"); o.code != 1 {
		t.Errorf("a result without a change is kept: %v", o)
	}
	r.mustRun(t, "workspace", "prune")
}
