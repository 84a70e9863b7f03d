package skill

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	s, err := (&Reader{Links: true}).Read(directory(t, func(dir string) error {
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
		"escapes":   func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "users")) },
		"is a link": func(dir string) error { return os.Symlink("SKILL.md", filepath.Join(dir, "same")) },
		"not a regular file": func(dir string) error {
			return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)
		},
		"larger than 2 MiB":                   func(dir string) error { return os.WriteFile(filepath.Join(dir, "big"), nil, 0o600) },
		"more than 512 files and directories": many,
		"no SKILL.md":                         func(dir string) error { return os.Remove(filepath.Join(dir, "SKILL.md")) },
	} {
		root := directory(t, make)
		if what == "larger than 2 MiB" {
			if err := root.WriteFile("big", []byte(strings.Repeat("x", longestFile+1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := (&Reader{Links: what != "is a link"}).Read(root, "paint"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestReaderBounds: what is read for an agent counts together, to the byte.
func TestReaderBounds(t *testing.T) {
	root := directory(t, func(dir string) error { return os.WriteFile(filepath.Join(dir, "more"), []byte("12345"), 0o600) })
	r := Reader{total: longestAll - 6}
	if _, err := r.Read(root, "fits"); err != nil || r.total != longestAll {
		t.Errorf("%d left: %v", longestAll-r.total, err)
	}
	for _, left := range []int{5, 0} {
		r := Reader{total: longestAll - left}
		if _, err := r.Read(root, "over"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "64 MiB together") {
			t.Errorf("%d left: %v", left, err)
		}
	}
	if f, err := read(root, "more", 5); err != nil || len(f.Data) != 5 {
		t.Error(err)
	}
	if list, err := (listing{directory(t, many)}).ReadDir("."); err != nil || len(list) != mostEntries+1 {
		t.Errorf("%d are listed: %v", len(list), err)
	}
}

// many are directories, and more than a skill has.
func many(dir string) error {
	for i := range mostEntries + 9 {
		if err := os.Mkdir(filepath.Join(dir, strconv.Itoa(i)), 0o700); err != nil {
			return err
		}
	}
	return nil
}

func TestCheckNames(t *testing.T) {
	for name, ok := range map[string]bool{"paint": true, "Paint-2.x_y": true, "": false, "..": false, "a/b": false, ".a": false, "a\n": false, strings.Repeat("a", 65): false} {
		if err := CheckNames([]string{"a", name}); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := CheckNames([]string{"a", "b", "a"}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"a" is named twice`) {
		t.Errorf("twice: %v", err)
	}
	var names []string
	for i := range mostSkills {
		names = append(names, strconv.Itoa(i))
	}
	if err := CheckNames(names); err != nil {
		t.Error(err)
	}
	if err := CheckNames(append(names, "more")); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "at most 32") {
		t.Errorf("too many: %v", err)
	}
}
