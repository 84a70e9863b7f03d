package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What was a file when the directory was listed may be anything when it is
// opened.
func TestFilesThatChange(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(dir string) error{
		"nothing":              func(string) error { return nil },
		"a link out":           func(dir string) error { return os.Symlink(filepath.Join(outside, "f"), filepath.Join(dir, "d/f")) },
		"a FIFO":               func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "d/f"), 0o600) },
		"a directory":          func(dir string) error { return os.Mkdir(filepath.Join(dir, "d/f"), 0o700) },
		"its directory a link": func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "d")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ctx, fail := context.WithCancelCause(t.Context())
			f, err := newFiles(dir, fail)
			if err != nil {
				t.Fatal(err)
			}
			if name != "its directory a link" {
				if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if name == "nothing" {
				if err := os.WriteFile(filepath.Join(dir, "d/f"), []byte("own"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			file, err := f.Open("d/f")
			if name != "nothing" {
				if err == nil || context.Cause(ctx) == nil {
					t.Errorf("it is opened: %v, %v", err, context.Cause(ctx))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(file); err != nil || string(b) != "own" || ctx.Err() != nil {
				t.Errorf("%q, %v, %v", b, err, context.Cause(ctx))
			}
		})
	}
}
