package provision

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

const (
	oneKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	twoKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIoYBPpXCYmp+g8wBOn3L9ZqwN21G0/EqM4Hg8jRKyA8"
)

func parsed(t *testing.T, line string) ssh.PublicKey {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sshAgent(t *testing.T) Agent {
	t.Helper()
	one, two := parsed(t, oneKey), parsed(t, twoKey)
	return Agent{Proxy: netip.MustParseAddrPort("10.66.0.1:8888"), SSH: []SSH{
		{Host: "git", HostName: "git.example.com", Port: 2222, User: "git", Key: one, HostKeys: []ssh.PublicKey{two, one}},
		{Host: "web.example.com", HostName: "web.example.com", Port: 22, Key: two, HostKeys: []ssh.PublicKey{two}},
	}}
}

func TestSSHFiles(t *testing.T) {
	a := sshAgent(t)
	files, err := a.Files()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range files {
		got[f.Path] = string(f.Data)
		if f.Mode != 0o444 || f.Owner != "0:0" {
			t.Errorf("%s: mode %o of %s", f.Path, f.Mode, f.Owner)
		}
	}
	for path, want := range map[string]string{
		"/run/carboy/ssh/known_hosts":          "git " + twoKey + "\ngit " + oneKey + "\nweb.example.com " + twoKey + "\n",
		"/run/carboy/ssh/key-1.pub":            oneKey + "\n",
		"/run/carboy/ssh/key-2.pub":            twoKey + "\n",
		"/etc/ssh/ssh_config.d/10-carboy.conf": "Include /run/carboy/ssh/config\n",
	} {
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
	if env := strings.Join(a.Env(), " "); env != "SSH_AUTH_SOCK=/run/carboy/ssh/agent.sock GIT_SSH_COMMAND=ssh -F /run/carboy/ssh/config" {
		t.Error(env)
	}
}

// TestSSHReadsItsConfiguration asks ssh itself.
func TestSSHReadsItsConfiguration(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("needs ssh: make deps")
	}
	files, err := sshAgent(t).Files()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config")
	for _, f := range files {
		if f.Path == sshConfigPath {
			if err := os.WriteFile(config, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for host, want := range map[string][]string{
		"git": {"hostname git.example.com", "port 2222", "user git", "identityfile /run/carboy/ssh/key-1.pub", "identitiesonly yes", "identityagent /run/carboy/ssh/agent.sock",
			"hostkeyalias git", "userknownhostsfile /run/carboy/ssh/known_hosts", "globalknownhostsfile /dev/null", "stricthostkeychecking true", "updatehostkeys false", "forwardagent no"},
		"web.example.com": {"hostname web.example.com", "port 22", "identityfile /run/carboy/ssh/key-2.pub"},
		"other":           {"hostname other", "identitiesonly no"},
	} {
		out, err := exec.Command("ssh", "-G", "-F", config, host).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, line := range append(want, "proxycommand /.carboy-init connect 10.66.0.1:8888 %h %p") {
			if !strings.Contains("\n"+string(out), "\n"+line+"\n") {
				t.Errorf("%s: no %q in\n%s", host, line, out)
			}
		}
	}
}
