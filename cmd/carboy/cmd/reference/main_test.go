package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestReferenceIsCurrent compares what the repository has with what the commands
// say.
func TestReferenceIsCurrent(t *testing.T) {
	const checkedIn = "../../../../docs/reference"
	dir := t.TempDir()
	if err := write(dir, ""); err != nil {
		t.Fatal(err)
	}
	now, then := read(t, dir), read(t, checkedIn)
	if len(now) == 0 {
		t.Fatal("no page was written")
	}
	for name, text := range now {
		if !bytes.Equal(then[name], text) {
			t.Errorf("docs/reference/%s is not what the command says: run `make docs`", name)
		}
	}
	for name := range then {
		if now[name] == nil {
			t.Errorf("docs/reference/%s is of no command: run `make docs`", name)
		}
	}
}

var date = regexp.MustCompile(`(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}`)

func TestManPages(t *testing.T) {
	first, again := t.TempDir(), t.TempDir()
	for _, dir := range []string{first, again} {
		if err := write("", dir); err != nil {
			t.Fatal(err)
		}
	}
	pages := read(t, first)
	for _, name := range []string{"carboy.1", "carboy-run.1", "carboy-image-ls.1"} {
		if !bytes.Contains(pages[name], []byte(".SH SYNOPSIS")) {
			t.Errorf("%s: %.200q", name, pages[name])
		}
	}
	for name, text := range read(t, again) {
		if !bytes.Equal(pages[name], text) || date.Match(text) {
			t.Errorf("%s differs from day to day", name)
		}
	}
}

func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string][]byte{}
	for _, e := range entries {
		if pages[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return pages
}
