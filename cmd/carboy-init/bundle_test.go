package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

// imageWith is a root with these files, and links whose text begins with ->.
func imageWith(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func put(t *testing.T, root string, f initproto.File) error {
	t.Helper()
	f.Owner, f.Mode = fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()), 0o644
	return writeFile(root, f)
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

func TestAfter(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"none", nil, "ours\n"},
		{"first", map[string]string{"a/one": "1\n", "a/two": "2\n"}, "1\nours\n"},
		{"second", map[string]string{"a/two": "2"}, "2\nours\n"},
		{"empty", map[string]string{"a/one": "", "a/two": "2"}, "ours\n"},
		{"link", map[string]string{"a/one": "->../b/three", "b/three": "3\n"}, "3\nours\n"},
		{"absolute link", map[string]string{"a/one": "->/b/three", "b/three": "3\n"}, "3\nours\n"},
		{"link of a directory", map[string]string{"a": "->/b", "b/two": "2\n"}, "2\nours\n"},
		{"link that leads nowhere", map[string]string{"a/one": "->/gone", "a/two": "2\n"}, "2\nours\n"},
		{"link that would lead out", map[string]string{"a/one": "->../../../../../etc/passwd", "etc/passwd": "", "a/two": "2"}, "ours\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := imageWith(t, tt.files)
			if err := put(t, root, initproto.File{Path: "/x/bundle", Data: []byte("ours\n"), After: []string{"/a/one", "/a/two"}}); err != nil {
				t.Fatal(err)
			}
			if got := read(t, root, "x/bundle"); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("theirs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		at    string
		want  string
	}{
		{"file", map[string]string{"a/one": "1\n"}, "a/one", "1\nours\n"},
		{"no file", map[string]string{"a/other": ""}, "a/one", "ours\n"},
		{"no directory", nil, "a/one", ""},
		{"file as directory", map[string]string{"a": "text"}, "a", "text"},
		{"link", map[string]string{"a/one": "->/b/two", "b/two": "2\n"}, "b/two", "2\nours\n"},
		{"link to a directory", map[string]string{"a": "->/b", "b/one": "1\n"}, "b/one", "1\nours\n"},
		{"link to nowhere", map[string]string{"a/one": "->/b/two"}, "b/two", ""},
		{"link out", map[string]string{"a/one": "->" + outside}, "a/one", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := imageWith(t, tt.files)
			if err := put(t, root, initproto.File{Path: "/a/one", Data: []byte("ours\n"), Append: true}); err != nil {
				t.Fatal(err)
			}
			if tt.name != "link out" {
				if got := read(t, root, tt.at); got != tt.want {
					t.Errorf("%q, want %q", got, tt.want)
				}
			}
			if got := read(t, filepath.Dir(outside), "outside"); got != "theirs\n" {
				t.Errorf("a file outside the root is %q", got)
			}
		})
	}
}

// TestAppendToNoFile never waits, and keeps nobody from seeing that the image's
// own certificates are not there.
func TestAppendToNoFile(t *testing.T) {
	for what, place := range map[string]func(string) error{
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o666) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"loop":      func(path string) error { return os.Symlink("one", path) },
		"huge file": func(path string) error {
			return os.WriteFile(path, make([]byte, 5<<20), 0o600)
		},
	} {
		root := imageWith(t, map[string]string{"a/other": ""})
		if err := place(filepath.Join(root, "a/one")); err != nil {
			t.Fatal(err)
		}
		for _, f := range []initproto.File{{Path: "/a/one", Append: true}, {Path: "/b", After: []string{"/a/one"}}} {
			if err := put(t, root, f); err == nil {
				t.Errorf("%s: %+v is no error", what, f)
			}
		}
	}
}
