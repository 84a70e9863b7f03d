package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

// imageRoot is a directory as an image may be.
func imageRoot(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: sudo go test ./cmd/carboy-init -root")
	}
	dir := t.TempDir()
	for _, d := range []string{"etc", "home", "home/agent", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("agent:x:1000:1000::/home/agent:/bin/sh\nnohome:x:1001:1001::/:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func owner(t *testing.T, path string) string {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", sys.Uid, sys.Gid)
}

func TestFilesAtHome(t *testing.T) {
	dir := imageRoot(t)
	if err := writeFile(dir, initproto.File{Path: "~/.claude/skills/x/SKILL.md", Mode: 0o640, Owner: "agent", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"home": "0:0", "home/agent": "0:0", "home/agent/.claude": "1000:1000", "home/agent/.claude/skills/x/SKILL.md": "1000:1000"} {
		if got := owner(t, filepath.Join(dir, path)); got != want {
			t.Errorf("%s is of %s, want %s", path, got, want)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "home/agent/.claude/skills/x/SKILL.md")); err != nil || st.Mode() != 0o640 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := writeFile(dir, initproto.File{Path: "~/x/y", Mode: 0o600, Owner: "nohome"}); err != nil {
		t.Fatal(err)
	}
	if got := owner(t, filepath.Join(dir, "x")); got != "0:0" {
		t.Errorf("a directory of the root is of %s", got)
	}
}

func TestLinks(t *testing.T) {
	dir := imageRoot(t)
	if err := writeFile(dir, initproto.File{Path: "~/.codex/auth.json", Owner: "agent", Link: "/run/auth"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "home/agent/.codex/auth.json")
	if to, err := os.Readlink(path); err != nil || to != "/run/auth" || owner(t, path) != "1000:1000" {
		t.Errorf("%s, %v, %s", to, err, owner(t, path))
	}
}

func TestMerge(t *testing.T) {
	dir := imageRoot(t)
	path := filepath.Join(dir, "home/agent/state.json")
	merge := initproto.File{Path: "~/state.json", Mode: 0o600, Owner: "agent", Data: []byte(`{"a": {"b": 1}, "c": [2]}`), Merge: true}
	for there, want := range map[string]string{
		``:                            `{"a":{"b":1},"c":[2]}`,
		`{"a": {"b": 0, "x": 3}}`:     `{"a":{"b":1,"x":3},"c":[2]}`,
		`{"a": 7, "keep": "me"}`:      `{"a":{"b":1},"c":[2],"keep":"me"}`,
		`[1]`:                         `{"a":{"b":1},"c":[2]}`,
		`null`:                        `{"a":{"b":1},"c":[2]}`,
		`{"a": `:                      `{"a":{"b":1},"c":[2]}`,
		strings.Repeat(" ", 1<<20+1):  `{"a":{"b":1},"c":[2]}`,
		`{"mcp": {"s": {"t": "u"}}} `: `{"a":{"b":1},"c":[2],"mcp":{"s":{"t":"u"}}}`,
	} {
		if err := os.WriteFile(path, []byte(there), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(dir, merge); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if again, _ := json.Marshal(got); string(again) != want {
			t.Errorf("%.40q became %s, want %s", there, again, want)
		}
	}
}

// Whatever an image has where something is written, nothing outside of its root
// is read, written or waited for.
func TestHostileImage(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for _, f := range []initproto.File{
		{Path: "~/.claude/settings.json", Mode: 0o600, Owner: "agent", Data: []byte(`{"mine": 1}`), Merge: true},
		{Path: "~/.claude/settings.json", Mode: 0o600, Owner: "agent", Data: []byte("mine")},
		{Path: "~/.claude/settings.json", Owner: "agent", Link: "/run/x"},
	} {
		for what, plant := range map[string]func(home string) error{
			"link as the file": func(home string) error {
				return errors.Join(os.Mkdir(home+"/.claude", 0o755), os.Symlink(outside, home+"/.claude/settings.json"))
			},
			"link as the directory": func(home string) error { return os.Symlink(filepath.Dir(outside), home+"/.claude") },
			"relative link out": func(home string) error {
				return os.Symlink("../../../../../../../../../../../"+filepath.Dir(outside), home+"/.claude")
			},
			"link as the home": func(home string) error { return errors.Join(os.Remove(home), os.Symlink(filepath.Dir(outside), home)) },
			"FIFO": func(home string) error {
				return errors.Join(os.Mkdir(home+"/.claude", 0o755), syscall.Mkfifo(home+"/.claude/settings.json", 0o600))
			},
			"device": func(home string) error {
				return errors.Join(os.Mkdir(home+"/.claude", 0o755), syscall.Mknod(home+"/.claude/settings.json", syscall.S_IFCHR|0o666, 1<<8|3))
			},
			"full directory":        func(home string) error { return os.MkdirAll(home+"/.claude/settings.json/a/b", 0o755) },
			"file as the directory": func(home string) error { return os.WriteFile(home+"/.claude", nil, 0o600) },
		} {
			dir := imageRoot(t)
			if err := os.WriteFile(outside, []byte(`{"theirs": 1}`), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := plant(filepath.Join(dir, "home/agent")); err != nil {
				t.Fatal(err)
			}
			err := writeFile(dir, f)
			if there, readErr := os.ReadFile(outside); readErr != nil || string(there) != `{"theirs": 1}` {
				t.Errorf("%s: outside is now %q, %v", what, there, readErr)
			}
			if entries, _ := os.ReadDir(filepath.Dir(outside)); len(entries) != 1 {
				t.Errorf("%s: outside there are %v", what, entries)
			}
			if err != nil {
				continue // the bottle is not started
			}
			if text, err := os.ReadFile(filepath.Join(dir, "home/agent/.claude/settings.json")); f.Link == "" && (err != nil || strings.Contains(string(text), "theirs")) {
				t.Errorf("%s: %q, %v", what, text, err)
			}
		}
	}
}

// TestPlace: secrets are in memory or nowhere, and nothing is written to what
// was mounted, whatever links the image has.
func TestPlace(t *testing.T) {
	memory := func(at string) func(dir string) error {
		return func(dir string) error { return unix.Mount("tmpfs", filepath.Join(dir, at), "tmpfs", 0, "") }
	}
	for _, tt := range []struct {
		what, path string
		prepare    func(dir string) error
		ok         bool
	}{
		{"run in memory", "/run/secrets/a", memory("run"), true},
		{"run on disk", "/run/secrets/a", func(string) error { return nil }, false},
		{"run is a link", "/run/secrets/a", func(dir string) error {
			return errors.Join(os.Remove(dir+"/run"), os.Symlink("home", dir+"/run"))
		}, false},
		{"a mount at home", "~/.claude/settings.json", memory("home/agent"), false},
		{"a link to a mount", "~/.claude/settings.json", func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/data", 0o755), memory("data")(dir), os.Symlink("../../data", dir+"/home/agent/.claude"))
		}, false},
		{"a home of the image's", "~/.claude/settings.json", memory("run"), true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			dir := imageRoot(t)
			if err := tt.prepare(dir); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				for _, at := range []string{"run", "data", "home/agent"} {
					_ = unix.Unmount(filepath.Join(dir, at), unix.MNT_DETACH) // where there is one
				}
			})
			f := initproto.File{Path: tt.path, Mode: 0o400, Owner: "agent", Data: []byte("secret")}
			if err := writeFile(dir, f); (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
			f.Data, f.Merge = []byte("{}"), true
			if err := writeFile(dir, f); (err == nil) != tt.ok {
				t.Errorf("merged: %v", err)
			}
		})
	}
}
