package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carboy/test/world"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// TestSSHKeys lends keys that are locked, and those of the caller's own agent.
func TestSSHKeys(t *testing.T) {
	r := newRig(t, 1)
	const phrase = "open sesame"
	locked, held := newSSHKey(t, phrase), newSSHKey(t, "")
	server := newGitServer(t, r, locked, held)
	r.importImages(t, sshTools(t))
	lend := func(key string) {
		t.Helper()
		manifests(t, coder("allowlist", key, server.hostKey.public, newSSHKey(t, "").public, server.home))
	}
	whoami := []string{"--yes", "--runtime", "runc", "--", "ssh", "code", "id", "-un"}

	write(t, "/etc/carboy/keys/locked", string(locked.private), 0o600)
	t.Cleanup(func() { _ = os.RemoveAll("/etc/carboy/keys") })
	lend("../keys/locked")
	c := r.command(t, append([]string{"run", "coder"}, whoami...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal, wherever the test runs
	if o := finish(t, c); o.code != 2 || !strings.Contains(o.stderr, "keys/locked: it has a passphrase, and there is no terminal") {
		t.Errorf("nobody to ask: %v", o)
	}
	checkPassphrase(t, r, append([]string{"run", "coder", "-d"}, whoami...), phrase)

	home := account(t, "user", 1500)
	socket := holdKey(t, filepath.Join(home, "agent"), held, 1500)
	roots := holdKey(t, filepath.Join(home, "roots"), held, 0)
	lend("agent:work")
	sudo := func(env ...string) outcome {
		c := r.command(t, append([]string{"run", "coder"}, whoami...)...)
		c.Env = append(c.Env, append(env, "SUDO_UID=1500", "SUDO_GID=1500")...)
		return finish(t, c)
	}
	if o := sudo("SSH_AUTH_SOCK=" + socket); o.code != 0 || o.stdout != "git\n" {
		t.Errorf("the caller's agent: %v", o)
	}
	if o := sudo("SSH_AUTH_SOCK=" + roots); o.code != 2 || !strings.Contains(o.stderr, "permission denied (opened as user") {
		t.Errorf("root's agent: %v", o)
	}
	if err := os.Chmod(roots, 0o666); err != nil {
		t.Fatal(err)
	}
	if o := sudo("SSH_AUTH_SOCK=" + roots); o.code != 2 || !strings.Contains(o.stderr, "runs as uid 0 and not as user, uid 1500") {
		t.Errorf("root's agent, open to all: %v", o)
	}
	if o := sudo("SSH_AUTH_SOCK="); o.code != 2 || !strings.Contains(o.stderr, "sudo --preserve-env=SSH_AUTH_SOCK carboy") {
		t.Errorf("no agent: %v", o)
	}
	lend("agent:other")
	if o := sudo("SSH_AUTH_SOCK=" + socket); o.code != 2 || !strings.Contains(o.stderr, `it has no key "other", but `+held.print+` ("work")`) {
		t.Errorf("a key that the agent does not have: %v", o)
	}
}

// checkPassphrase: it is asked for where the caller is, not shown, and handed to
// the process in the background.
func checkPassphrase(t *testing.T, r *rig, args []string, phrase string) {
	t.Helper()
	s := r.open(t, args...)
	s.shows(t, "passphrase of")
	s.typed(t, phrase+"\n")
	if code := s.ends(t); code != 0 || strings.Contains(s.screen.String(), phrase) {
		t.Fatalf("exit %d: %s", code, s.screen.String())
	}
	if out := r.mustRun(t, "wait", "coder"); out != "0\n" {
		t.Errorf("it ended with %q", out)
	}
	if o := r.run(t, "logs", "coder"); o.stdout != "git\n" {
		t.Errorf("%v", o)
	}
}

// holdKey is a user's ssh-agent with a key called work.
func holdKey(t *testing.T, socket string, key sshKey, uid int) string {
	t.Helper()
	private, err := ssh.ParseRawPrivateKey(key.private)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private, Comment: "work"}); err != nil {
		t.Fatal(err)
	}
	l, err := world.ListenAs(socket, uid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	go world.LendKeys(l, ring)
	return socket
}
