package skill

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

func directory(t *testing.T, make func(dir string) error) *os.Root {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "SKILL.md"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := make(dir); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestRead(t *testing.T) {
	s, err := Read(directory(t, func(dir string) error {
		if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "bin/dip"), []byte("dip"), 0o700); err != nil {
			return err
		}
		return os.Symlink("bin/dip", filepath.Join(dir, "dip"))
	}), "paint")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range s.Files {
		mark := ""
		if f.Executable {
			mark = "*"
		}
		got = append(got, f.Path+mark+"="+string(f.Data))
	}
	if want := []string{"SKILL.md=x", "bin/dip*=dip", "dip*=dip"}; !slices.Equal(got, want) || s.Name != "paint" {
		t.Errorf("%s: %q", s.Name, got)
	}
}

func TestReadRefuses(t *testing.T) {
	for what, make := range map[string]func(dir string) error{
		"escapes": func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "users")) },
		"not a regular file": func(dir string) error {
			return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)
		},
		"at most 2 MiB": func(dir string) error { return os.WriteFile(filepath.Join(dir, "big"), nil, 0o600) },
		"more than": func(dir string) error {
			for i := range mostFiles {
				if err := os.WriteFile(filepath.Join(dir, strings.Repeat("a", i%200+1)+strings.Repeat("b", i/200)), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		"no SKILL.md": func(dir string) error { return os.Remove(filepath.Join(dir, "SKILL.md")) },
	} {
		root := directory(t, make)
		if what == "at most 2 MiB" {
			if err := root.WriteFile("big", []byte(strings.Repeat("x", longestFile+1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Read(root, "paint"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{"paint": true, "Paint-2.x_y": true, "": false, "..": false, "a/b": false, ".a": false, "a\n": false, strings.Repeat("a", 65): false} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
