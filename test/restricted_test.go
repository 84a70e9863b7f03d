package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// dev is of a restricted group, eve is of none.
const dev, eve = 4321, 4322

// members makes both accounts, the operator's configuration and his agent. The
// configuration says what tests' environment says else, which is not for dev.
func members(t *testing.T, r *rig) {
	t.Helper()
	account(t, "dev", dev)
	account(t, "eve", eve)
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	write(t, "/etc/group", string(groups)+"agents:x:4399:dev\n", 0o644)
	t.Cleanup(func() { write(t, "/etc/group", string(groups), 0o644) })
	manifests(t, map[string]string{
		"agents/worker.md":  "---\nbottle: work\ncommand: [sh, -c, 'echo hello; echo made >made; exec sleep 600']\n---\n",
		"agents/over.md":    "---\nbottle: over\n---\n",
		"agents/quick.md":   "---\nbottle: quick\ncommand: ['true']\n---\n",
		"bottles/work.yaml": "image: " + imageName + "\nruntime: runc\nproxy: {engine: allowlist}\n",
		"bottles/over.yaml": "extends: work\nworkspace: {mode: overlay}\n",
		// which looks for runsc
		"bottles/quick.yaml": "image: " + imageName + "\nproxy: {engine: allowlist}\n",
	})
	r.configure(t, "restricted_groups: [agents]\n")
	t.Cleanup(func() { r.mustRun(t, "workspace", "prune", "--results") })
}

func (r *rig) configure(t *testing.T, more string) {
	t.Helper()
	manifests(t, map[string]string{"config.yaml": fmt.Sprintf("address: %s\nnamespace: %s\ncni-bin-dir: %s\n%s",
		r.containerd.Address, r.namespace, r.containerd.Version.PluginDir, more)})
}

// as is a command line of somebody who calls sudo, which here keeps all of his
// environment. Root is nobody's.
func (r *rig) as(t *testing.T, uid int, dir string, env []string, args ...string) outcome {
	t.Helper()
	return finish(t, r.commandOf(t, uid, dir, env, args...))
}

func (r *rig) commandOf(t *testing.T, uid int, dir string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	c := r.command(t, args...)
	c.Env = append(c.Env, env...)
	if uid != 0 {
		c.Env = append(c.Env, fmt.Sprintf("SUDO_UID=%d", uid), fmt.Sprintf("SUDO_GID=%d", uid))
	}
	c.Dir = dir
	return c
}

// TestRestrictedBuild: what a member's agent is built from is opened as root. A
// client with his rights he could trace, and have any image built by any name.
func TestRestrictedBuild(t *testing.T) {
	r := newRig(t, 1)
	members(t, r)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nCOPY --chmod=644 roots /roots\n"})
	write(t, filepath.Join(dir, "roots"), "of root\n", 0o600)
	manifests(t, map[string]string{
		"agents/built.md":    "---\nbottle: built\ncommand: [cat, /roots]\n---\n",
		"bottles/built.yaml": "runtime: runc\nproxy: {engine: allowlist}\nbuild: {context: " + dir + "}\n",
	})
	t.Cleanup(func() { r.unbuild(t, "carboy.local/built:latest") })
	if o := r.as(t, eve, "/", nil, "run", "built", "--yes"); o.code == 0 || !strings.Contains(o.stderr, "permission denied") {
		t.Errorf("eve, who may do all: %v", o)
	}
	if o := r.as(t, dev, "/", nil, "run", "built", "--yes"); o.code != 0 || o.stdout != "of root\n" {
		t.Errorf("dev: %v", o)
	}
}

// projectOf is a directory of a user's.
func projectOf(t *testing.T, uid int, text string) string {
	t.Helper()
	dir := project(t, map[string]string{"file": text})
	ownedBy(t, dir, uid)
	return dir
}

// TestRestrictedBottles: a member does to his own bottles what can be done to
// one, and others' are not there for him.
func TestRestrictedBottles(t *testing.T) {
	r := newRig(t, 1)
	members(t, r)
	instances := map[string]string{}
	for name, uid := range map[string]int{"dev": dev, "eve": eve} {
		dir := projectOf(t, uid, name)
		if o := r.as(t, uid, dir, nil, "run", "worker", "--yes", "-d", "--cwd", "--name", name+"s"); o.code != 0 {
			t.Fatalf("%v", o)
		}
		t.Cleanup(func() { r.run(t, "rm", "-f", name+"s") })
	}
	for _, b := range r.ls(t) {
		instances[b.Name] = b.Instance
	}
	one := func(args ...string) outcome { return r.as(t, dev, "", nil, args...) }
	if o := one("ls", "-q", "--all"); o.stdout != "devs\n" {
		t.Errorf("dev sees %v", o)
	}
	if o := r.as(t, eve, "", nil, "ls", "-q"); o.stdout != "devs\neves\n" {
		t.Errorf("eve sees %v", o)
	}
	got := filepath.Join("/var/lib/dev", "got")
	each := [][]string{
		{"inspect", "NAME"}, {"logs", "NAME"}, {"logs", "--proxy", "NAME"}, {"top", "NAME"}, {"stats", "--no-stream", "NAME"}, {"exec", "NAME", "true"},
		{"diff", "NAME"}, {"cp", "NAME:made", got}, {"cp", "/etc/hostname", "NAME:new"}, {"kill", "-s", "CONT", "NAME"}, {"apply", "-y", "NAME"},
		{"stop", "-t", "1", "NAME"}, {"wait", "NAME"}, {"rm", "-f", "NAME"},
	}
	eventually(t, "the agents have written", func() bool {
		return r.run(t, "exec", "devs", "cat", "made").code == 0 && r.run(t, "exec", "eves", "cat", "made").code == 0
	})
	for _, args := range each {
		for _, name := range []string{"eves", instances["eves"]} {
			o := one(strings.Fields(strings.ReplaceAll(strings.Join(args, " "), "NAME", name))...)
			if o.code == 0 || o.stdout != "" || !strings.Contains(o.stderr, "no bottle") && !strings.Contains(o.stderr, "has no workspace") {
				t.Errorf("%q of eve's: %v", args, o)
			}
		}
	}
	r.checkSandbox(t, one)
	for _, args := range each {
		if o := one(strings.Fields(strings.ReplaceAll(strings.Join(args, " "), "NAME", "devs"))...); o.code != 0 {
			t.Errorf("%q of his own: %v", args, o)
		}
	}
	one("kill", "--all")
	one("stop", "--all")
	if o := r.as(t, eve, "", nil, "exec", "eves", "cat", "made"); o.stdout != "made\n" {
		t.Errorf("eve's bottle afterwards: %v", o)
	}
	r.mustRun(t, "stop", "eves")
	for _, args := range [][]string{{"diff", "eves"}, {"rm", "eves"}, {"wait", "eves"}, {"logs", "eves"}} {
		if o := one(args...); o.code == 0 || o.stdout != "" {
			t.Errorf("%q after its end: %v", args, o)
		}
	}
	if o := r.as(t, eve, "", nil, "diff", "eves"); o.stdout != "A made\n" {
		t.Errorf("eve's result: %v", o)
	}
	r.checkDead(t)
}

// checkDead: a member's start removes what anybody's dead bottle left, and can
// have its name.
func (r *rig) checkDead(t *testing.T) {
	t.Helper()
	if o := r.as(t, eve, "/", nil, "run", "worker", "--yes", "-d", "--name", "dead"); o.code != 0 {
		t.Fatalf("%v", o)
	}
	for _, b := range r.ls(t) {
		if err := syscall.Kill(b.PID, syscall.SIGKILL); err != nil || b.Name != "dead" {
			t.Fatalf("kill the supervisor of %s: %v", b.Name, err)
		}
	}
	if o := r.as(t, dev, "/", nil, "run", "worker", "--yes", "--name", "dead", "--", "true"); o.code != 0 {
		t.Errorf("the name of a dead bottle: %v", o)
	}
}

// checkSandbox is what a member cannot do with a bottle that is his.
func (r *rig) checkSandbox(t *testing.T, one func(...string) outcome) {
	t.Helper()
	secret, roots := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "dir")
	write(t, secret, "of root\n", 0o600)
	put(t, filepath.Join(roots, "file"), "of root\n")
	ownedBy(t, roots, 0)
	write(t, "/etc/cron.d/own", "", 0o644)
	t.Cleanup(func() { _ = os.RemoveAll("/etc/cron.d") })
	for _, args := range [][]string{
		{"exec", "-u", "root", "devs", "true"}, {"cp", "devs:made", "/etc/cron.d/made"}, {"cp", secret, "devs:secret"}, {"apply", "-y", "devs", roots},
	} {
		if o := one(args...); o.code == 0 || !strings.Contains(o.stderr, "permission denied") && !strings.Contains(o.stderr, "may not use") {
			t.Errorf("dev can %q: %v", args, o)
		}
		if o := r.run(t, args...); o.code != 0 {
			t.Errorf("root cannot %q: %v", args, o)
		}
	}
}

// TestRestricted: what makes root of who may call carboy is refused to a member,
// and root can do it.
func TestRestricted(t *testing.T) {
	r := newRig(t, 1)
	members(t, r)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "A=b\n", 0o600)
	stolen, marker := filepath.Join(t.TempDir(), "stolen.tar"), filepath.Join(t.TempDir(), "marker")
	editor := filepath.Join(t.TempDir(), "editor")
	write(t, editor, "#!/bin/sh\nid -u >"+marker+"\n", 0o755)
	own := projectOf(t, dev, "")
	for path, text := range map[string]string{
		"/var/lib/dev/.config/carboy/agents/mine.md":   "---\nbottle: work\n---\n",
		filepath.Join(own, ".carboy/agents/theirs.md"): "---\nbottle: work\n---\n",
		"/root/.config/carboy/agents/mine.md":          "---\nbottle: work\n---\n",
	} {
		put(t, path, text)
	}
	manifests(t, map[string]string{"bottles/work.yaml": "image: " + imageName + "\nruntime: runc\nproxy: {engine: allowlist}\nprojects: true\n"})
	t.Cleanup(func() { _ = os.RemoveAll("/root/.config/carboy") })
	dry := func(args ...string) []string { return append([]string{"run", "--dry-run"}, args...) }
	for _, args := range [][]string{
		dry("worker", "--env-file", secret), dry("worker", "--workspace", "/root"), dry("worker", "--mount", "/root:/data"), dry("worker", "--user", "root"),
		dry("worker", "--allow", "example.com"), dry("--image", imageName), dry("worker", "--image", imageName), dry("worker", "--proxy-binary", "/bin/sh", "--proxy", "pipelock"),
		dry("worker", "--memory", "1GiB"), dry("worker", "--registry-config", secret), dry("mine"), dry("theirs"), dry("claude"), dry("over", "--cwd"),
		{"image", "import", shared.archive}, {"image", "export", "-o", stolen, imageName}, {"edit", "worker"}, {"generate", "systemd", "worker"},
		{"config"}, {"gc", "--dry-run"}, {"validate", "/etc/carboy/agents/worker.md"}, {"image", "ls"}, {"workspace", "ls"},
		{"ls", "--state-dir", "/tmp/state"}, {"ls", "--cni-bin-dir", "/tmp"}, {"ls", "--address", r.containerd.Address}, {"ls", "--namespace", "default"},
		{"--log-dir", "/tmp/log", "ls"}, {"ls", "--data-dir", "/tmp/data"}, {"agents", "--workspace", own},
	} {
		env := []string{"VISUAL=" + editor}
		o := r.as(t, dev, own, env, args...)
		if o.code == 0 || o.stdout != "" || !strings.HasPrefix(o.stderr, "carboy: group agents ") || strings.Contains(o.stderr, "A=b") {
			t.Errorf("dev: %q: %v", args, o)
		}
		if exists(stolen) || exists(marker) {
			t.Errorf("%q has written", args)
		}
		if o := r.as(t, 0, own, env, args...); o.code != 0 {
			t.Errorf("root: %q: %v", args, o)
		}
		_, _ = os.Remove(stolen), os.Remove(marker)
	}
	if o := r.as(t, dev, own, nil, "agents", "-q"); o.stdout != "over\nquick\nworker\n" {
		t.Errorf("dev's agents: %v", o)
	}
	if o := r.as(t, 0, own, nil, "agents", "-q"); !strings.Contains(o.stdout, "claude\n") || !strings.Contains(o.stdout, "mine\n") || !strings.Contains(o.stdout, "theirs\n") {
		t.Errorf("root's agents: %v", o)
	}
	r.checkProject(t)
	r.checkEnvironment(t)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// checkProject: a member's agent gets no directory that he cannot read himself.
func (r *rig) checkProject(t *testing.T) {
	t.Helper()
	roots := t.TempDir()
	put(t, filepath.Join(roots, "file"), "of root\n")
	if err := os.Chmod(roots, 0o700); err != nil {
		t.Fatal(err)
	}
	run := []string{"run", "worker", "--yes", "--cwd", "--", "cat", "file"}
	if o := r.as(t, dev, roots, nil, run...); o.code == 0 || o.stdout != "" || !strings.Contains(o.stderr, "permission denied (opened as dev") {
		t.Errorf("dev in root's directory: %v", o)
	}
	if o := r.as(t, 0, roots, nil, run...); o.stdout != "of root\n" {
		t.Errorf("root in it: %v", o)
	}
	if o := r.as(t, dev, projectOf(t, dev, "of dev\n"), nil, run...); o.stdout != "of dev\n" {
		t.Errorf("dev in his own: %v", o)
	}
}

// checkEnvironment: whatever sudo lets through, a member's variables are his
// agent's and not carboy's.
func (r *rig) checkEnvironment(t *testing.T) {
	t.Helper()
	bin, marker := t.TempDir(), filepath.Join(t.TempDir(), "marker")
	write(t, filepath.Join(bin, "runsc"), "#!/bin/sh\nid -u >"+marker+"\nexit 1\n", 0o755)
	const probes = "/run/carboy/probe/runsc-*"
	before, _ := filepath.Glob(probes)
	t.Cleanup(func() {
		after, _ := filepath.Glob(probes)
		for _, probe := range after {
			if !slices.Contains(before, probe) {
				_ = os.Remove(probe)
			}
		}
	})
	env := []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/nowhere", "GIVEN=by dev"}
	elsewhere := append(slices.Clone(env), "CONTAINERD_ADDRESS=/nowhere", "CARBOY_STATE_DIR=/nowhere", "CARBOY_CNI_BIN_DIR=/nowhere")
	run := []string{"run", "quick", "--yes", "-e", "GIVEN", "--", "sh", "-c", `echo "$GIVEN"`}
	for _, env := range [][]string{env, elsewhere} {
		if o := r.as(t, dev, "", env, run...); o.code != 0 || o.stdout != "by dev\n" || exists(marker) {
			t.Errorf("dev: %v, marker %v", o, exists(marker))
		}
	}
	if o := r.as(t, 0, "", elsewhere, run...); o.code == 0 {
		t.Errorf("root elsewhere: %v", o)
	}
	if o := r.as(t, 0, "", env[:1], "run", "quick", "--yes"); !exists(marker) {
		t.Errorf("root's runsc is not looked at: %v", o)
	}
}

// TestRestrictedUnknown: where nobody can tell who is restricted, only root goes
// on.
func TestRestrictedUnknown(t *testing.T) {
	r := newRig(t, 1)
	members(t, r)
	for _, tt := range []struct {
		config               string
		asDev, asEve, asRoot int
		says                 string
	}{
		{"restricted_groups: [agents]\n", 0, 0, 0, ""},
		{"restricted_groups: [agents, no-such]\n", 1, 1, 0, `restricted_groups in /etc/carboy/config.yaml: group: no entry for "no-such"`},
		{"restricted_groups: {agents: true}\n", 2, 2, 2, "restricted_groups: give one value, or a list of values"},
		{"restricted-groups: [agents]\n", 2, 2, 2, `did you mean "restricted_groups"?`},
	} {
		r.configure(t, tt.config)
		for uid, want := range map[int]int{dev: tt.asDev, eve: tt.asEve, 0: tt.asRoot} {
			if o := r.as(t, uid, "", nil, "ls"); o.code != want || want != 0 && !strings.Contains(o.stderr, tt.says) {
				t.Errorf("%q as %d: %v, want %d", tt.config, uid, o, want)
			}
		}
	}
}
