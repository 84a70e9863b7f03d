package changes

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carboy/runtime/invoker"
)

// target is a project with files.
func target(t *testing.T, files map[string]string) (Target, string) {
	t.Helper()
	who, err := invoker.Current()
	if err != nil {
		t.Fatal(err)
	}
	top := tree(t, files)
	return Target{Top: top, User: who}, top.Name()
}

// files are the paths below a directory, with what they hold.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestApplyDeletesLast: what an agent moved is not lost where its new place
// cannot be written.
func TestApplyDeletesLast(t *testing.T) {
	project, dir := target(t, map[string]string{"a": "a", "was": "file"})
	s := Sides{Before: tree(t, nil), Upper: tree(t, map[string]string{"c": "c"})}
	err := s.Apply(t.Context(), project, []Change{
		{Kind: Deleted, Path: "a", Type: "file"},
		{Kind: Added, Path: "b", Type: "file", Mode: 0o644}, // is not there
		{Kind: Added, Path: "c", Type: "file", Mode: 0o644},
		{Kind: Deleted, Path: "was", Type: "file"},
		{Kind: Added, Path: "was", Type: "link"}, // neither
	})
	if err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), `"was"`) {
		t.Errorf("what is missing: %v", err)
	}
	if got := files(t, dir); len(got) != 3 || got["a"] != "a" || got["c"] != "c" || got["was"] != "file" {
		t.Errorf("is written: %v", got)
	}
}

// TestApplyReplaces puts other types of files in the places of deleted ones.
func TestApplyReplaces(t *testing.T) {
	project, dir := target(t, map[string]string{"dir/deep/x": "x", "dirt": "kept", "file": "f", "gone": "g"})
	s := Sides{Before: tree(t, nil), Upper: tree(t, map[string]string{"dir": "now a file", "file/y": "y"})}
	err := s.Apply(t.Context(), project, []Change{
		{Kind: Deleted, Path: "dir", Type: "directory"},
		{Kind: Deleted, Path: "dir/deep", Type: "directory"},
		{Kind: Deleted, Path: "dir/deep/x", Type: "file"},
		{Kind: Added, Path: "dir", Type: "file", Mode: 0o644},
		{Kind: Deleted, Path: "file", Type: "file"},
		{Kind: Added, Path: "file", Type: "directory", Mode: 0o755},
		{Kind: Added, Path: "file/y", Type: "file", Mode: 0o644},
		{Kind: Deleted, Path: "gone", Type: "file"},
	})
	if err != nil {
		t.Error(err)
	}
	if got := files(t, dir); len(got) != 3 || got["dir"] != "now a file" || got["file/y"] != "y" || got["dirt"] != "kept" {
		t.Errorf("is written: %v", got)
	}
}
