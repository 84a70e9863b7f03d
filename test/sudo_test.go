package test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// sudoers installs the example for the tests' carboy.
func sudoers(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../examples/sudoers.d/carboy")
	if err != nil {
		t.Fatal(err)
	}
	const installed = "/etc/sudoers.d/carboy"
	write(t, installed, strings.ReplaceAll(string(text), "/usr/local/bin/carboy", shared.carboy), 0o440)
	t.Cleanup(func() { _ = os.Remove(installed) })
	hostTool(t, "visudo", "-cf", installed)
	accounts, err := os.ReadFile("/etc/shadow")
	if err != nil {
		t.Fatal(err)
	}
	// sudo asks whether the accounts are open.
	write(t, "/etc/shadow", string(accounts)+"dev:!:20000::::::\neve:!:20000::::::\n", 0o640)
	t.Cleanup(func() { write(t, "/etc/shadow", string(accounts), 0o640) })
}

// TestSudo is the example rule with the real sudo.
func TestSudo(t *testing.T) {
	r := newRig(t, 1)
	members(t, r)
	sudoers(t)
	sudo := func(uid int, env []string, args ...string) outcome {
		c := exec.CommandContext(t.Context(), "sudo", append([]string{"-n"}, args...)...)
		c.Env = append([]string{"PATH=/usr/bin:/bin"}, env...)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		return finish(t, c)
	}
	run := []string{shared.carboy, "run", "worker", "--yes", "-e", "CODEX_API_KEY", "--", "sh", "-c", `echo "$CODEX_API_KEY"`}
	if o := sudo(dev, []string{"CODEX_API_KEY=of dev"}, run...); o.code != 0 || o.stdout != "of dev\n" {
		t.Errorf("dev's agent: %v", o)
	}
	if o := sudo(dev, nil, run...); o.code != 2 || !strings.Contains(o.stderr, "CODEX_API_KEY is not set: sudo drops it unless called as `sudo --preserve-env=CODEX_API_KEY carboy ...`, or env_keep in sudoers has it") {
		t.Errorf("without a variable: %v", o)
	}
	image := []string{shared.carboy, "image", "ls"}
	if o := sudo(dev, nil, image...); o.code != 1 || !strings.HasPrefix(o.stderr, "carboy: group agents may not use `carboy image ls`") {
		t.Errorf("what is restricted: %v", o)
	}
	for _, forged := range [][]string{{"SUDO_UID=0"}, {"--preserve-env=SUDO_UID"}, {"CONTAINERD_ADDRESS=/nowhere"}} {
		if o := sudo(dev, []string{"SUDO_UID=0"}, append(forged, image...)...); o.code == 0 || o.stdout != "" {
			t.Errorf("%q: %v", forged, o)
		}
	}
	if o := sudo(eve, nil, image...); o.code == 0 || !strings.HasPrefix(o.stderr, "sudo: ") {
		t.Errorf("eve has no rule: %v", o)
	}
}
