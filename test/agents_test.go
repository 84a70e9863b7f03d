package test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asking are the manifests of an agent that is asked about, and says what it
// got without saying it.
func asking(t *testing.T) {
	t.Helper()
	manifests(t, map[string]string{
		"agents/asks.md":      "---\nbottle: asking\ncommand: [sh, -c, 'printf %s \"$ASKED-$GIVEN\" | sha256sum; cat']\n---\n",
		"bottles/base.yaml":   "runtime: runc\nproxy: {engine: allowlist}\nimage: " + imageName + "\n",
		"bottles/asking.yaml": "extends: base\nenv: {ASKED: '?Token of the forge', GIVEN: 'credential:given'}\n",
		"bottles/open.yaml":   "extends: base\nprojects: true\n",
	})
}

// credentials is a directory as systemd makes it for a service.
func credentials(t *testing.T, n *needle) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "given"), n.value+"\n", 0o400)
	return "CREDENTIALS_DIRECTORY=" + dir
}

func digest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

func (s *session) echoes(t *testing.T) bool {
	t.Helper()
	return s.termios(t).Lflag&unix.ECHO != 0
}

// TestAskedSecret types a secret at a terminal: it is not shown, in no file, and
// the terminal is as before, also after an interrupt.
func TestAskedSecret(t *testing.T) {
	r := newRig(t, 1)
	asking(t)
	since := time.Now()
	asked, given := newNeedle(), newNeedle()
	directory := credentials(t, given)
	for _, flags := range [][]string{nil, {"-d"}} {
		s := r.openWith(t, []string{directory}, append([]string{"run", "asks", "--yes"}, flags...)...)
		s.shows(t, "ASKED, Token of the forge (not shown): ")
		if s.echoes(t) {
			t.Error("the terminal shows what is typed")
		}
		s.typed(t, asked.value+"\r")
		if flags == nil {
			s.shows(t, digest(asked.value+"-"+given.value))
			s.typed(t, "\x04")
		}
		if code := s.ends(t); code != 0 || !s.echoes(t) || strings.Contains(s.screen.String(), asked.value) {
			t.Errorf("%v: exit %d, echo %v:\n%s", flags, code, s.echoes(t), s.screen.String())
		}
	}
	checkHanded(t, r, digest(asked.value+"-"+given.value), asked, given)
	places := append(r.places(), "/etc/carboy")
	if found := asked.search(t, places, since); len(found) > 0 {
		t.Errorf("what was typed is in %v", found)
	}
	if found := given.search(t, places, since); len(found) != 1 || filepath.Base(found[0]) != "given" {
		t.Errorf("the credential is in %v, and should be in its own file alone", found)
	}
}

// checkHanded looks at the bottle in the background, and removes it.
func checkHanded(t *testing.T, r *rig, want string, secrets ...*needle) {
	t.Helper()
	eventually(t, "the output of the agent", func() bool { return strings.Contains(r.run(t, "logs", "asks").stdout, want) })
	proc := fmt.Sprintf("/proc/%d/", r.ls(t)[0].PID)
	for _, file := range []string{"cmdline", "environ"} {
		f, err := os.Open(proc + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range secrets {
			if found, err := n.in(f); found || err != nil {
				t.Errorf("a secret is in the supervisor's %s, %v", file, err)
			}
			_, _ = f.Seek(0, 0)
		}
		_ = f.Close()
	}
	r.mustRun(t, "rm", "-f", "asks")
}

// TestSecretsElsewhere: values come from files and descriptors of who calls, and
// nothing is made where one is missing.
func TestSecretsElsewhere(t *testing.T) {
	r := newRig(t, 1)
	asking(t)
	home := account(t, "dev", 4321)
	own, roots := filepath.Join(home, "own"), filepath.Join(home, "roots")
	write(t, own, "own\n", 0o400)
	write(t, roots, "roots\n", 0o400)
	if err := os.Chown(own, 4321, 4321); err != nil {
		t.Fatal(err)
	}
	read, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	_, err = feed.WriteString("piped\n\n")
	if err := feed.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		flags []string
		code  int
		want  string
	}{
		{[]string{"--secret", "ASKED=" + own, "--secret", "GIVEN=fd:3"}, 0, digest("own-piped\n")},
		{[]string{"--secret", "ASKED=" + own, "--secret", "GIVEN=fd:0"}, 0, digest("own-typed")},
		{[]string{"--secret", "ASKED=" + roots, "--secret", "GIVEN=" + own}, 2, "permission denied (opened as dev, who called sudo)"},
		{[]string{"--secret", "ASKED=" + own}, 2, "the systemd unit needs `LoadCredential=given:FILE`"},
		{[]string{"--secret", "GIVEN=" + own}, 2, "there is no terminal to ask for ASKED on: give it by --secret ASKED=FILE"},
		{[]string{"--secret", "GIVEN=fd:9", "--secret", "ASKED=" + own}, 2, "fd:9: not a file descriptor that the caller opened"},
	} {
		c := r.command(t, append([]string{"run", "asks", "--yes"}, tt.flags...)...)
		c.Env = append(c.Env, "SUDO_UID=4321", "SUDO_GID=4321")
		c.ExtraFiles, c.Stdin = []*os.File{read}, strings.NewReader("typed\n")
		if o := finish(t, c); o.code != tt.code || !strings.Contains(o.stdout+o.stderr, tt.want) {
			t.Errorf("%q: %v, want %d and %q", tt.flags, o, tt.code, tt.want)
		}
	}
}

// TestSecretInterrupted: Ctrl-C at the question leaves nothing, and a terminal
// that shows what is typed.
func TestSecretInterrupted(t *testing.T) {
	r := newRig(t, 1)
	asking(t)
	s := r.openWith(t, []string{credentials(t, newNeedle())}, "run", "asks", "--yes")
	s.shows(t, "(not shown): ")
	s.typed(t, "half\x03")
	if code := s.ends(t); code == 0 || !s.echoes(t) {
		t.Errorf("exit %d, echo %v:\n%s", code, s.echoes(t), s.screen.String())
	}
	if list := r.ls(t); len(list) != 0 {
		t.Errorf("there is %+v", list)
	}
}

// TestProjectsAgent runs an agent that a project brought, in a bottle that the
// operator opened to projects, with the rights of who calls.
func TestProjectsAgent(t *testing.T) {
	r := newRig(t, 1)
	asking(t)
	dir := filepath.Join(account(t, "dev", 4321), "project")
	for name, text := range map[string]string{
		".carboy/agents/brought.md":   "---\nbottle: open\nenv: {A: from the project}\ncommand: [sh, -c, 'echo \"$A\"; cat \"$CARBOY_PROMPT_FILE\"']\n---\nHi.\n",
		".carboy/agents/greedy.md":    "---\nbottle: asking\n---\n",
		".carboy/bottles/asking.yaml": "projects: true\nimage: " + imageName + "\n",
	} {
		put(t, filepath.Join(dir, name), text)
	}
	run := func(agent string) outcome {
		c := r.command(t, "run", agent, "--yes", "--workspace", dir)
		c.Env = append(c.Env, "SUDO_UID=4321", "SUDO_GID=4321")
		return finish(t, c)
	}
	if o := run("brought"); o.code != 0 || o.stdout != "from the project\nHi.\n" || !strings.Contains(o.stderr, "BROUGHT BY THE PROJECT") {
		t.Errorf("%v", o)
	}
	if o := run("greedy"); o.code != 2 || !strings.Contains(o.stderr, "writes `projects: true` into /etc/carboy/bottles/asking.yaml") {
		t.Errorf("%v", o)
	}
	if err := os.Chmod(filepath.Join(dir, ".carboy"), 0o700); err != nil {
		t.Fatal(err)
	}
	if o := run("brought"); o.code == 0 || !strings.Contains(o.stderr, "permission denied") {
		t.Errorf("root's own agents are read for a user: %v", o)
	}
	r.mustRun(t, "workspace", "prune", "--results")
}

// TestInitAndEditAsk write and change manifests at a terminal.
func TestInitAndEditAsk(t *testing.T) {
	r := newRig(t, 1)
	dir := filepath.Join(t.TempDir(), "new")
	s := r.open(t, "init", "--dest", dir)
	for _, step := range [][2]string{
		{"name of the agent: ", "helper"}, {"provider (claude, codex, generic) [generic]: ", ""}, {"image: ", imageName},
		{"presets of hosts", "npm go"}, {"further hosts: ", "a.test"},
	} {
		s.shows(t, step[0])
		s.typed(t, step[1]+"\r")
	}
	if code := s.ends(t); code != 0 {
		t.Fatalf("exit %d:\n%s", code, s.screen.String())
	}
	text, err := os.ReadFile(filepath.Join(dir, "bottles/helper.yaml"))
	if want := "image: " + imageName + "\negress:\n  presets: [npm, go]\n  allow:\n  - a.test\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v, want %q", text, err, want)
	}
	manifests(t, map[string]string{"bottles/helper.yaml": string(text)})
	s = r.openWith(t, []string{"VISUAL=sed -i -e 's/prests.*/presets: [pypi]/' -e t -e s/presets/prests/"}, "edit", "--bottle", "helper")
	s.shows(t, `unknown key "prests" (did you mean "presets"?)`)
	s.shows(t, "edit again? [y/N] ")
	s.typed(t, "y\r")
	if code := s.ends(t); code != 0 {
		t.Errorf("exit %d:\n%s", code, s.screen.String())
	}
	text, err = os.ReadFile("/etc/carboy/bottles/helper.yaml")
	if err != nil || !strings.Contains(string(text), "presets: [pypi]") {
		t.Errorf("%q, %v", text, err)
	}
}

// TestEditIsTheUsers: behind sudo an editor has the user's rights, and what is
// the operator's stays his.
func TestEditIsTheUsers(t *testing.T) {
	r := newRig(t, 1)
	asking(t)
	home := account(t, "dev", 4321)
	own := filepath.Join(home, ".config/carboy/bottles/own.yaml")
	write(t, own, "image: a\n", 0o600)
	hostTool(t, "chown", "-R", "4321:4321", home)
	edit := func(bottle, editor string) outcome {
		c := r.command(t, "edit", "--bottle", bottle)
		c.Env = append(c.Env, "SUDO_UID=4321", "SUDO_GID=4321", "VISUAL="+editor)
		return finish(t, c)
	}
	if o := edit("own", "id -un; sed -i s/a$/b/"); o.code != 0 || !strings.Contains(o.stdout, "dev\n") {
		t.Errorf("%v", o)
	}
	st, err := os.Stat(own)
	text, readErr := os.ReadFile(own)
	if err != nil || readErr != nil || string(text) != "image: b\n" || st.Mode().Perm() != 0o600 {
		t.Errorf("%q, %v, %v, %v", text, st, err, readErr)
	}
	if o := edit("base", "touch "+home+"/ran;"); o.code != 2 || !strings.Contains(o.stderr, "sudoedit /etc/carboy/bottles/base.yaml") {
		t.Errorf("the operator's: %v", o)
	}
	if _, err := os.Stat(home + "/ran"); err == nil {
		t.Error("an editor ran for what cannot be saved")
	}
}

// TestValidateIsTheUsers: behind sudo what manifests name is opened with the
// user's rights, as at a start; the operator's skills are read with his.
func TestValidateIsTheUsers(t *testing.T) {
	r := newRig(t, 1)
	account(t, "dev", 4321)
	const vault = "/etc/carboy/vault/"
	manifests(t, map[string]string{
		"agents/keeper.md":         "---\nbottle: vault\nskills: [brush]\n---\n",
		"skills/brush/SKILL.md":    "paint\n",
		"vault/key":                "s3cret\n",
		"vault/data/file":          "",
		"vault/context/Dockerfile": "FROM x\n",
		"bottles/vault.yaml":       "build:\n  context: ../vault/context\nmounts:\n- source: ../vault/data\n  target: /data\nssh:\n- host: a.test\n  key: ../vault/key\n  known-hosts: [" + newSSHKey(t, "").public + "]\n",
	})
	if err := os.Chmod(vault, 0o700); err != nil {
		t.Fatal(err)
	}
	validate := func(env ...string) outcome {
		c := r.command(t, "validate", "/etc/carboy/agents/keeper.md")
		c.Env = append(c.Env, env...)
		return finish(t, c)
	}
	if o := validate(); o.code != 0 || !strings.Contains(o.stdout, "keeper.md: valid (bottle vault, skills brush, mount "+vault+"data, key "+vault+"key, build "+vault+"context)") {
		t.Errorf("root: %v", o)
	}
	o := validate("SUDO_UID=4321", "SUDO_GID=4321")
	for _, want := range []string{
		"vault.yaml:1: build context: open " + vault + "context", "vault.yaml:4: mount: open " + vault + "data", "vault.yaml:8: ssh host a.test: ssh key: open " + vault + "key",
	} {
		if want += ": permission denied (opened as dev, who called sudo)"; o.code != 2 || !strings.Contains(o.stderr, want) {
			t.Errorf("no %q: %v", want, o)
		}
	}
	if strings.Contains(o.stderr, "brush") {
		t.Errorf("the operator's skill: %v", o)
	}
}
