package test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"carboy/test/world"
)

// project makes a directory with files, by their paths.
func project(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(dir, name), text)
	}
	return dir
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestWorkspaceCopy is the life of a project: an agent changes a copy, the
// changes are shown, and the next agent begins with the project as it is.
func TestWorkspaceCopy(t *testing.T) {
	each := 0
	onEach(t, func(t *testing.T, r *rig) {
		each++
		for _, runtime := range runtimes[each%2 : each%2+1] { // what both do is looked at on one containerd by others
			dir := project(t, map[string]string{"README": "hello\n", "src/main.go": "package main\n", "src/old.go": "package old\n"})
			work := bottle("--runtime", runtime, "--name", "worker", "--workspace", dir)
			o := r.run(t, append(work, "--", "sh", "-c", "pwd; id -u; cat README; echo more >>README; rm src/old.go; mkdir new; echo x >new/file")...)
			if o.code != 0 || o.stdout != "/workspace\n1000\nhello\n" {
				t.Fatalf("%s: %v", runtime, o)
			}
			if got, want := r.mustRun(t, "diff", "worker"), "M README\nA new/\nA new/file\nD src/old.go\n"; got != want {
				t.Errorf("%s: diff is %q, want %q", runtime, got, want)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "README")); string(text) != "hello\n" {
				t.Errorf("%s: the project was written to: %q, %v", runtime, text, err)
			}
			r.mustRun(t, "rm", "worker")
			put(t, filepath.Join(dir, "README"), "changed\n")
			o = r.run(t, append(work, "--", "sh", "-c", "cat README src/old.go")...)
			if o.code != 0 || o.stdout != "changed\npackage old\n" {
				t.Errorf("%s: after a change: %v", runtime, o)
			}
		}
		r.mustRun(t, "workspace", "prune")
	})
}

// TestWorkspaceApply writes changes back, as the user behind sudo.
func TestWorkspaceApply(t *testing.T) {
	r := newRig(t, 1)
	const uid = 65534
	for _, runtime := range runtimes {
		dir := project(t, map[string]string{"a": "a\n", "d/gone": "x", "d/kept": "x", "type": "x", "mine": "1\n", ".git/config": "[core]\n", ".git/HEAD": "ref\n"})
		ownedBy(t, dir, uid)
		change := `set -e; echo more >>a; rm d/gone; rm type; mkdir type; echo y >type/file; ln -s /etc/shadow evil; mkdir -p new/deep; echo z >new/deep/f
			chmod 755 a; printf 'n' >"$(printf 'odd\nname\377')"; echo bad >>.git/config; mkdir .git/hooks; echo bad >.git/hooks/pre-commit; echo new >.git/HEAD; mkfifo pipe; printf x >"$(printf 'esc\033[2J')"`
		as := func(args ...string) outcome {
			c := r.command(t, args...)
			c.Env = append(c.Env, "SUDO_UID=65534", "SUDO_GID=65534")
			return finish(t, c)
		}
		if o := as(append(bottle("--runtime", runtime, "--name", "worker", "--workspace", dir), "--", "sh", "-c", change)...); o.code != 0 || !strings.Contains(o.stderr, "carboy diff worker") {
			t.Fatalf("%s: %v", runtime, o)
		}
		o := r.run(t, "diff", "worker")
		for _, want := range []string{"M a\n", "D d/gone\n", "D type\n", "A type/\n", "A type/file\n", "A evil\n", `A "odd\nname\xff"` + "\n", `A "esc\x1b[2J"` + "\n", "M .git/config\n"} {
			if !strings.Contains(o.stdout, want) {
				t.Errorf("%s: diff lacks %q: %v", runtime, want, o)
			}
		}
		put(t, filepath.Join(dir, "mine"), "mine\n") // which the agent did not touch
		put(t, filepath.Join(dir, "a"), "mine too\n")
		o = as("apply", "-y", "worker")
		if o.code != 1 || !strings.Contains(o.stderr, "nothing is written") || !strings.Contains(o.stderr, "M a\n") || strings.Contains(o.stderr, "mine\n") {
			t.Errorf("%s: a conflict: %v", runtime, o)
		}
		if _, err := os.Lstat(filepath.Join(dir, "evil")); err == nil {
			t.Errorf("%s: something was written nevertheless", runtime)
		}
		put(t, filepath.Join(dir, "a"), "a\n")
		unasked := r.command(t, "apply", "worker")
		unasked.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal, wherever the test runs
		if o := finish(t, unasked); o.code != 2 || !strings.Contains(o.stderr, "--yes") {
			t.Errorf("%s: nobody was asked: %v", runtime, o)
		}
		if _, err := os.Lstat(filepath.Join(dir, "evil")); err == nil {
			t.Errorf("%s: something was written without an answer", runtime)
		}
		if o = as("apply", "-y", "worker"); o.code != 0 || !strings.Contains(o.stderr, "as nobody") {
			t.Errorf("%s: apply: %v", runtime, o)
		}
		for name, want := range map[string]string{"a": "a\nmore\n", "mine": "mine\n", "d/kept": "x", "type/file": "y\n", "new/deep/f": "z\n", "odd\nname\xff": "n", ".git/config": "[core]\n", ".git/HEAD": "new\n"} {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
				t.Errorf("%s: %q is %q, want %q: %v", runtime, name, text, want, err)
			}
		}
		for _, name := range []string{"d/gone", ".git/hooks", "pipe"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				t.Errorf("%s: %s is there", runtime, name)
			}
		}
		if target, err := os.Readlink(filepath.Join(dir, "evil")); target != "/etc/shadow" {
			t.Errorf("%s: evil leads to %q, %v", runtime, target, err)
		}
		for _, name := range []string{"a", "new/deep/f", "evil"} {
			if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Sys().(*syscall.Stat_t).Uid != uid {
				t.Errorf("%s: %s is not the user's: %v", runtime, name, err)
			}
		}
		if o = as("apply", "-y", "worker"); o.code != 0 || !strings.Contains(o.stderr, "nothing to write") {
			t.Errorf("%s: apply again: %v", runtime, o)
		}
		r.mustRun(t, "rm", "worker")
	}
	r.mustRun(t, "workspace", "prune")
}

// ownedBy gives a tree, and the way to it, to a user.
func ownedBy(t testing.TB, dir string, uid int) {
	t.Helper()
	for parent := dir; strings.HasPrefix(parent, os.TempDir()+"/"); parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWorkspaceOfAnother: paths are opened as who asks, and what another user's
// copy holds is not his.
func TestWorkspaceOfAnother(t *testing.T) {
	r := newRig(t, 1)
	dir := project(t, map[string]string{"open": "x", "secret": "top secret"})
	ownedBy(t, dir, 65534)
	for name, mode := range map[string]fs.FileMode{"secret": 0o600} {
		if err := errors.Join(os.Chown(filepath.Join(dir, name), 0, 0), os.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	work := append(bottle("--workspace", dir), "--", "cat", "secret")
	if o := r.run(t, work...); o.code != 0 || o.stdout != "top secret" {
		t.Errorf("root: %v", o)
	}
	for path, says := range map[string]string{dir: `"secret" cannot be read by nobody`, "/root": "permission denied", dir + "/open": "not a directory", dir + "/none": "no such file"} {
		c := r.command(t, append(bottle("--workspace", path), "--", "cat", "secret")...)
		c.Env = append(c.Env, "SUDO_UID=65534", "SUDO_GID=65534")
		if o := finish(t, c); o.code == 0 || o.stdout != "" || !strings.Contains(o.stderr, says) {
			t.Errorf("%s: want %q: %v", path, says, o)
		}
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceHostile has links in project and image that lead elsewhere.
func TestWorkspaceHostile(t *testing.T) {
	r := newRig(t, 1)
	link := func(name, target string) world.Entry {
		return world.Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}}
	}
	r.importImages(t,
		world.Image{Name: "carboy.test/link:latest", Raw: []world.Entry{link("workspace", "/etc"), link("sub", "usr")}},
		world.Image{Name: "carboy.test/file:latest", Files: map[string][]byte{"workspace": []byte("x")}},
		world.Image{Name: "carboy.test/passwd:latest", Raw: []world.Entry{link("etc/passwd", "/../../../../../../../../etc/shadow")}},
		world.Image{Name: "carboy.test/device:latest", Raw: []world.Entry{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "etc/passwd", Devmajor: 240, Devminor: 77}}}})
	dir := project(t, map[string]string{"a": "x"})
	for name, target := range map[string]string{"etc": "/etc", "up": "../../../../etc"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ image, target, says string }{
		{"link", "/workspace", "choose another --workspace-target"},
		{"link", "/sub/dir", "choose another --workspace-target"},
		{"file", "/workspace", "choose another --workspace-target"},
		{"passwd", "/workspace", "agent"},
		{"device", "/workspace", "not a regular file"}, // no driver has it: to open it says something else
		{"busybox", "/etc/x", "workspace target"},
		{"busybox", "/", "workspace target"},
		{"busybox", "/a/../b", "workspace target"},
	} {
		o := r.run(t, append(bottle("--image", "carboy.test/"+tc.image+":latest", "--workspace", dir, "--workspace-target", tc.target), "--", "ls", "/")...)
		if o.code == 0 || !strings.Contains(o.stderr, tc.says) {
			t.Errorf("%s: want %q: %v", tc.image, tc.says, o)
		}
	}
	for _, runtime := range runtimes {
		o := r.run(t, append(bottle("--runtime", runtime, "--workspace", dir, "--workspace-target", "/srv/pro ject"), "--", "sh", "-c", "pwd; readlink etc; readlink up; cat etc/shadow up/shadow")...)
		if o.code != 1 || o.stdout != "/srv/pro ject\n/etc\n../../../../etc\n" {
			t.Errorf("%s: %v", runtime, o)
		}
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceIsLive: what the agent writes is seen on the host at once, by
// both runtimes, and the bottle's name shows it.
func TestWorkspaceIsLive(t *testing.T) {
	r := newRig(t, 1)
	for _, runtime := range runtimes {
		dir := project(t, map[string]string{"a": "1\n2\n3\n"})
		l := r.start(t, "--runtime", runtime, "--workspace", dir)
		l.exec(t, "sh", "-c", "echo 4 >>a; printf '\\0' >binary; echo new >b")
		want := "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,3 +1,4 @@\n 1\n 2\n 3\n+4\n" +
			"diff --git a/b b/b\nnew file mode 100644\n--- /dev/null\n+++ b/b\n@@ -0,0 +1,1 @@\n+new\n" +
			"diff --git a/binary b/binary\nnew file mode 100644\nBinary files /dev/null and b/binary differ\n"
		if got := r.mustRun(t, "diff", "--patch", l.name); got != want {
			t.Errorf("%s: %s", runtime, got)
		}
		var all []struct{ Kind, Path, Type string }
		if err := json.Unmarshal([]byte(r.mustRun(t, "diff", "--json", l.name)), &all); err != nil || len(all) != 3 || all[0].Kind != "M" || all[0].Path != "a" || all[0].Type != "file" {
			t.Errorf("%s: %+v, %v", runtime, all, err)
		}
		if o := l.exec(t, "sh", "-c", "printf '1\\n2\\n3\\n' >a; rm b binary"); o.code != 0 {
			t.Error(o)
		}
		if got := r.mustRun(t, "diff", l.name); got != "" { // undone is not changed
			t.Errorf("%s: %s", runtime, got)
		}
		l.stop(t)
		if strings.Contains(l.stderr.String(), "carboy diff") {
			t.Errorf("%s: %s", runtime, l.stderr)
		}
		if o := r.run(t, "diff", l.name); o.code != 1 {
			t.Errorf("%s: a result without a change is kept: %v", runtime, o)
		}
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceOverlay shows the live directory with the agent's changes above.
func TestWorkspaceOverlay(t *testing.T) {
	r := newRig(t, 1)
	for _, runtime := range runtimes {
		dir := project(t, map[string]string{"a": "a\n", "d/gone": "x", "d/kept": "x", "late": "1\n"})
		put(t, filepath.Join(dir, "roots"), "secret")
		ownedBy(t, dir, 65534)
		if err := errors.Join(os.Chown(filepath.Join(dir, "roots"), 0, 0), os.Chmod(filepath.Join(dir, "roots"), 0o600)); err != nil {
			t.Fatal(err)
		}
		as := func(args ...string) outcome {
			c := r.command(t, args...)
			c.Env = append(c.Env, "SUDO_UID=65534", "SUDO_GID=65534")
			return finish(t, c)
		}
		work := bottle("--runtime", runtime, "--name", "worker", "--workspace", dir, "--workspace-mode", "overlay")
		for _, user := range []string{"1000:1000", "0"} {
			o := as(append(work, "-u", user, "--", "sh", "-c", "cat a; stat -c %u a; echo more >>a; rm -r d; mkdir d; echo n >d/new; echo 2 >>late; cat roots")...)
			if uid, _, _ := strings.Cut(user, ":"); o.code != 1 || o.stdout != "a\n"+uid+"\n" {
				t.Fatalf("%s as %s: %v", runtime, user, o)
			}
			if got, want := as("diff", "worker").stdout, "M a\nD d/gone\nD d/kept\nA d/new\nM late\n"; got != want {
				t.Errorf("%s: diff is %q, want %q", runtime, got, want)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "a")); string(text) != "a\n" {
				t.Errorf("%s: the project was written to: %q, %v", runtime, text, err)
			}
			if user == "0" {
				break
			}
			r.mustRun(t, "rm", "worker")
		}
		if o := r.run(t, append(work, "--name", "root", "--", "true")...); o.code != 0 {
			t.Errorf("%s: root: %v", runtime, o)
		}
		put(t, filepath.Join(dir, "late"), "me too\n")
		if o := as("apply", "-y", "worker"); o.code != 1 || !strings.Contains(o.stderr, "M late") {
			t.Errorf("%s: a conflict: %v", runtime, o)
		}
		if o := as("apply", "-y", "worker", project(t, nil)); o.code == 0 {
			t.Errorf("%s: modified what was not there: %v", runtime, o)
		}
		r.mustRun(t, "rm", "worker")
	}
}

// TestWorkspaceBind lets the agent write to the directory itself, as its owner,
// but not to what programs of the host take commands from.
func TestWorkspaceBind(t *testing.T) {
	r := newRig(t, 1)
	for _, runtime := range runtimes {
		kept := map[string]string{".git/HEAD": "ref\n", ".git/config": "[core]\n", ".envrc": "x\n", ".claude/settings.json": "{}\n",
			".codex/config.toml": "c\n", ".agents/x": "g\n", ".cursor/mcp.json": "m\n", ".gemini/settings.json": "s\n"}
		dir := project(t, kept)
		put(t, filepath.Join(dir, "a"), "a\n")
		work := bottle("--runtime", runtime, "--workspace", dir, "--workspace-mode", "bind")
		if o := r.run(t, append(work, "--", "true")...); o.code == 0 || !strings.Contains(o.stderr, "belongs to root") {
			t.Errorf("%s: root's directory: %v", runtime, o)
		}
		ownedBy(t, dir, 65534)
		as := func(uid string, args ...string) outcome {
			c := r.command(t, args...)
			c.Env = append(c.Env, "SUDO_UID="+uid, "SUDO_GID="+uid)
			return finish(t, c)
		}
		if o := as("12345", append(work, "--", "true")...); o.code == 0 || !strings.Contains(o.stderr, "belongs to user 65534") {
			t.Errorf("%s: another's directory: %v", runtime, o)
		}
		for _, name := range []string{".gitmodules", ".git/modules"} {
			sub := project(t, map[string]string{".git/HEAD": "ref\n"})
			if err := os.Mkdir(filepath.Join(sub, name), 0o755); err != nil {
				t.Fatal(err)
			}
			ownedBy(t, sub, 65534)
			if o := as("65534", append(bottle("--runtime", runtime, "--workspace", sub, "--workspace-mode", "bind"), "--", "true")...); o.code == 0 || !strings.Contains(o.stderr, "submodule") {
				t.Errorf("%s: with %s: %v", runtime, name, o)
			}
		}
		outside := t.TempDir()
		ownedBy(t, outside, 65534)
		for gitdir, refused := range map[string]bool{"./bare": true, "absolute": true, "none": true, "./link": true, outside: false} {
			tree := project(t, map[string]string{"bare/HEAD": "ref\n"})
			if err := os.Symlink(outside, filepath.Join(tree, "link")); err != nil {
				t.Fatal(err)
			}
			if gitdir == "absolute" {
				gitdir = filepath.Join(tree, "bare")
			}
			put(t, filepath.Join(tree, ".git"), "gitdir: "+gitdir+"\n")
			ownedBy(t, tree, 65534)
			o := as("65534", append(bottle("--runtime", runtime, "--workspace", tree, "--workspace-mode", "bind"), "--", "true")...)
			if (o.code != 0) != refused || strings.Contains(o.stderr, "the file .git leads to") != refused {
				t.Errorf("%s: gitdir %s: %v", runtime, gitdir, o)
			}
		}
		attempts := []string{
			"echo >>.git/config", "mkdir .git/hooks", "mv .git other", "rm .git/config", "echo h >.git/HEAD", "chmod 777 .git", "mv .git/HEAD .git/x",
			"echo .. >.git/commondir", "mkdir .git/evil", "ln .git/config b && echo >>b", "echo >>.envrc", "rm .envrc", "mv a .envrc",
			"mv .claude .old", "echo >.claude/settings.json", "echo >.claude/settings.local.json", "rm -r .claude",
			"echo >.codex/config.toml", "echo >.agents/new", "mv .cursor .old", "rm -r .gemini",
		}
		script := "stat -c %u a; echo more >>a; echo n >new; cat .git/HEAD .claude/settings.json\n"
		for _, attempt := range attempts {
			script += "(" + attempt + ") 2>/dev/null && echo '" + attempt + "'\n"
		}
		if o := as("65534", append(work, "--", "sh", "-c", script+"true")...); o.code != 0 || o.stdout != "1000\nref\n{}\n" || !strings.Contains(o.stderr, "WARNING") || strings.Contains(o.stderr, "carboy diff") {
			t.Errorf("%s: %v", runtime, o)
		}
		kept["a"], kept["new"] = "a\nmore\n", "n\n"
		for name, want := range kept {
			text, err := os.ReadFile(filepath.Join(dir, name))
			info, statErr := os.Stat(filepath.Join(dir, name))
			if err != nil || statErr != nil || string(text) != want || info.Sys().(*syscall.Stat_t).Uid != 65534 {
				t.Errorf("%s: %s is %q, want %q: %v", runtime, name, text, want, errors.Join(err, statErr))
			}
		}
	}
}

// TestWorkspaceCp copies in and out, while the bottle lives and after.
func TestWorkspaceCp(t *testing.T) {
	r := newRig(t, 1)
	for _, runtime := range runtimes {
		out := t.TempDir()
		ownedBy(t, out, 65534)
		secret := filepath.Join(t.TempDir(), "secret")
		put(t, secret, "host's")
		as := func(args ...string) outcome {
			c := r.command(t, args...)
			c.Env = append(c.Env, "SUDO_UID=65534", "SUDO_GID=65534")
			return finish(t, c)
		}
		l := r.start(t, "--runtime", runtime, "--workspace", project(t, map[string]string{"d/a": "a\n", "b": "b\n"}))
		if o := l.exec(t, "sh", "-c", "echo new >d/new; ln -s "+secret+" leak; ln -s / root; chmod 4755 b"); o.code != 0 {
			t.Fatal(o)
		}
		from := func(path string) string { return l.name + ":" + path }
		in := project(t, map[string]string{"in/x/y": "in\n"})
		ownedBy(t, in, 65534)
		look := func(when string) {
			for _, tc := range []struct {
				path, to, file, want string
			}{
				{"d/new", out, "new", "new\n"},
				{"/workspace/d", out, "d/new", "new\n"},
				{"b", filepath.Join(out, "renamed"), "renamed", "b\n"},
				{"./d/../b", filepath.Join(out, "again"), "again", "b\n"},
			} {
				o := as("cp", from(tc.path), tc.to)
				file := filepath.Join(out, tc.file)
				text, err := os.ReadFile(file)
				if o.code != 0 || err != nil || string(text) != tc.want {
					t.Errorf("%s, %s: %s: %q, %v: %v", runtime, when, tc.path, text, err, o)
					continue
				}
				if info, err := os.Stat(file); err != nil || info.Sys().(*syscall.Stat_t).Uid != 65534 || info.Mode()&fs.ModeSetuid != 0 {
					t.Errorf("%s, %s: %s: %v, %v", runtime, when, tc.path, info, err)
				}
			}
			for path, says := range map[string]string{"root/" + secret: "symbolic", "/etc/passwd": "not in the workspace", "../../etc/passwd": "no such file", "none": "no such file"} {
				if o := as("cp", from(path), filepath.Join(out, "bad")); o.code == 0 || !strings.Contains(o.stderr, says) {
					t.Errorf("%s, %s: %s: want %q: %v", runtime, when, path, says, o)
				}
			}
			if o := as("cp", from("b"), "/etc/carboy-test"); o.code == 0 {
				t.Errorf("%s: written as root: %v", runtime, o)
			}
			if o := as("cp", from("b"), "/proc/self/root"+out); o.code == 0 || !strings.Contains(o.stderr, "name the file itself") {
				t.Errorf("%s: led by /proc to what this process has open: %v", runtime, o)
			}
			if o := as("cp", from("leak"), out); o.code != 0 {
				t.Error(o)
			}
			if target, err := os.Readlink(filepath.Join(out, "leak")); target != secret {
				t.Errorf("%s: a link was followed: %q, %v", runtime, target, err)
			}
		}
		if runtime == "runc" { // a terabyte of nothing
			if o := l.exec(t, "truncate", "-s", "1099511627776", "hole"); o.code != 0 {
				t.Error(o)
			}
			if o := as("cp", from("hole"), out); o.code != 0 {
				t.Error(o)
			}
			if info, err := os.Stat(filepath.Join(out, "hole")); err != nil || info.Size() != 1<<40 || info.Sys().(*syscall.Stat_t).Blocks > 100 {
				t.Errorf("%s: a hole was filled: %v, %v", runtime, info, err)
			}
		}
		look("live")
		for _, args := range [][]string{{filepath.Join(in, "in/x/y"), from("d")}, {filepath.Join(in, "in"), from("")}, {filepath.Join(in, "in/x/y"), from("/workspace/named")}} {
			if o := as(append([]string{"cp"}, args...)...); o.code != 0 {
				t.Errorf("%s: %v: %v", runtime, args, o)
			}
		}
		if o := l.exec(t, "sh", "-c", "cat d/y in/x/y named; echo more >>d/y; echo more >>in/x/y"); o.code != 0 || o.stdout != "in\nin\nin\n" {
			t.Errorf("%s: what was copied in: %v", runtime, o)
		}
		for from, to := range map[string]string{"/etc/shadow": "", filepath.Join(in, "in/x/y"): "root/tmp/escaped", "/dev/null": ""} {
			if o := as("cp", from, l.name+":"+to); o.code == 0 {
				t.Errorf("%s: %s to %q: %v", runtime, from, to, o)
			}
		}
		l.stop(t)
		if out := r.mustRun(t, "workspace", "ls"); !regexp.MustCompile(`(?m)^result +`+l.name+` +[a-z2-7]{10} +\S+ .* /.*$`).MatchString(out) || !strings.Contains(out, "\ncopy ") {
			t.Errorf("%s: %s", runtime, out)
		}
		look("ended")
		if o := as("cp", filepath.Join(in, "in/x/y"), from("d")); o.code == 0 {
			t.Errorf("%s: an ended bottle was changed: %v", runtime, o)
		}
		fields := strings.Fields(r.mustRun(t, "workspace", "ls"))
		instance := fields[slices.Index(fields, "result")+2]
		r.mustRun(t, "diff", instance)
		r.mustRun(t, "rm", instance)
	}
	r.mustRun(t, "workspace", "prune")
}
