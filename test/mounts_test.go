package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMounts: what is shown of the host is the agent's as it is its owner's, and
// read-only unless said otherwise.
func TestMounts(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		dir := t.TempDir()
		file, live := filepath.Join(dir, "file"), filepath.Join(dir, "live")
		write(t, file, "one file\n", 0o600)
		write(t, filepath.Join(live, "notes"), "before\n", 0o600)
		const users = 4711
		for _, path := range []string{live, filepath.Join(live, "notes")} {
			if err := os.Chown(path, users, users); err != nil {
				t.Fatal(err)
			}
		}
		for _, kind := range []string{"runc", "runsc"} {
			o := r.run(t, bottle("--gate", "--runtime", kind, "-v", file+":/data/file", "-v", live+":/data2:rw", "-v", live+":/data3", "--", "sh", "-c",
				`cat /data/file; echo x >/data/file || echo refused; echo x >/data3/y || echo refused
cat /data2/notes && echo after >/data2/notes && echo new >/data2/`+kind+` && stat -c %u /data2/notes`)...)
			if o.code != 0 || o.stdout != "one file\nrefused\nrefused\nbefore\n1000\n" {
				t.Errorf("%s: %v", kind, o)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(live, kind), &st); err != nil || st.Uid != users || st.Gid != users {
				t.Errorf("%s: the agent's file is of %d, %v", kind, st.Uid, err)
			}
			if text := hostTool(t, "cat", file, filepath.Join(live, "notes")); text != "one file\nafter\n" {
				t.Errorf("%s: %q", kind, text)
			}
			write(t, filepath.Join(live, "notes"), "before\n", 0o600) // its owner stays
		}
	})
}

// TestMountsRefused: links of the host's or the image's lead nowhere, and nobody
// lends out what is not his.
func TestMountsRefused(t *testing.T) {
	r := newRig(t, 0)
	dir := t.TempDir()
	for name, to := range map[string]string{"run": "/run", "self": "/proc/self/root"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{"run": "services of the host", "self": "link of /proc", "pipe": "neither a directory", "nothing": "no such file"} {
		if o := r.run(t, bottle("-v", filepath.Join(dir, source)+":/x", "--", "true")...); o.code != 2 || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: %v", source, o)
		}
	}
	for _, made := range []string{"roots", "project/.git", "project/a"} {
		if err := os.MkdirAll(filepath.Join(dir, made), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	hostTool(t, "chown", "-R", "4711:4711", filepath.Join(dir, "project"))
	for name, want := range map[string]string{"roots": "belongs to root", "project": ".git is in it", "project/.git": "in .git"} {
		if o := r.run(t, bottle("-v", filepath.Join(dir, name)+":/x:rw", "--", "true")...); o.code != 125 || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: %v", name, o)
		}
	}
	if o := r.run(t, bottle("-v", filepath.Join(dir, "project/a")+":/x:rw", "--", "touch", "/x/made")...); o.code != 0 {
		t.Errorf("control: %v", o)
	}
	account(t, "lodger", 4711)
	c := r.command(t, bottle("-v", "/usr/share:/x", "--", "true")...)
	c.Env = append(c.Env, "SUDO_UID=4711", "SUDO_GID=4711")
	if o := finish(t, c); o.code != 125 || !strings.Contains(o.stderr, "belongs to user 0") {
		t.Errorf("another's directory: %v", o)
	}
}
