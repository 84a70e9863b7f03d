package changes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"carboy/runtime/invoker"
)

// target is a project with files. Root can write anywhere: in its place it is
// another's.
func target(t *testing.T, files map[string]string) (Target, string) {
	t.Helper()
	who, err := invoker.Current()
	if err != nil {
		t.Fatal(err)
	}
	top := tree(t, files)
	if who.UID == 0 {
		who = invoker.User{UID: 65534, GID: 65534, Name: "nobody"}
		err = filepath.WalkDir(top.Name(), func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, who.UID, who.GID))
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return Target{Top: top, User: who}, top.Name()
}

func modes(t *testing.T, dir string, names ...string) (all []fs.FileMode) {
	t.Helper()
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Mode().Perm())
	}
	return all
}

// chmod makes what a test leaves behind removable, too.
func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
}

// TestApplyReadOnly: what is in a directory is written before the mode with
// which nothing can be.
func TestApplyReadOnly(t *testing.T) {
	project, dir := target(t, map[string]string{"was/f": "f"})
	chmod(t, filepath.Join(dir, "was"), 0o500)
	s := Sides{Before: tree(t, nil), Upper: tree(t, map[string]string{"ro/none/f": "f", "was/g": "g"})}
	todo := []Change{
		{Kind: Added, Path: "ro", Type: "directory", Mode: 0o555},
		{Kind: Added, Path: "ro/none", Type: "directory", Mode: 0},
		{Kind: Added, Path: "ro/none/f", Type: "file", Mode: 0o444},
		{Kind: Modified, Path: "was", Type: "directory", Mode: 0o550},
		{Kind: Deleted, Path: "was/f", Type: "file"},
		{Kind: Added, Path: "was/g", Type: "file", Mode: 0o600},
	}
	if err := s.Apply(t.Context(), project, todo); err != nil {
		t.Fatal(err)
	}
	if got := modes(t, dir, "ro", "ro/none", "was", "was/g"); !slices.Equal(got, []fs.FileMode{0o555, 0, 0o550, 0o600}) {
		t.Errorf("modes %o", got)
	}
	for _, name := range []string{"was", "ro", "ro/none"} {
		chmod(t, filepath.Join(dir, name), 0o700)
	}
	if got := files(t, dir); len(got) != 2 || got["ro/none/f"] != "f" || got["was/g"] != "g" {
		t.Errorf("is written: %v", got)
	}
}

// TestExport copies a read-only directory, and leaves the modes of those that
// are there.
func TestExport(t *testing.T) {
	project, dir := target(t, map[string]string{"out/mine/kept": "k"})
	chmod(t, filepath.Join(dir, "out/mine"), 0o700)
	from := tree(t, map[string]string{"d/mine/f": "f", "d/ro/f": "f"})
	chmod(t, filepath.Join(from.Name(), "d/mine"), 0o755)
	chmod(t, filepath.Join(from.Name(), "d/ro"), 0o555)
	if err := Export(t.Context(), from, "d", project, "out"); err != nil {
		t.Fatal(err)
	}
	if got := modes(t, dir, "out/mine", "out/ro"); !slices.Equal(got, []fs.FileMode{0o700, 0o555}) {
		t.Errorf("modes %o", got)
	}
	if got := files(t, dir); len(got) != 3 || got["out/ro/f"] != "f" || got["out/mine/f"] != "f" {
		t.Errorf("is written: %v", got)
	}
	chmod(t, filepath.Join(dir, "out/ro"), 0o700)
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
