package test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestEgressSave: a change that is to last is in the bottle's manifest, or is not
// made.
func TestEgressSave(t *testing.T) {
	r := newRig(t, 0)
	const path, owner = "/etc/carboy/bottles/kept.yaml", 4321
	account(t, "dev", owner)
	manifests(t, map[string]string{
		"agents/kept.md":    "---\nbottle: kept\n---\n",
		"bottles/base.yaml": "egress: {allow: [base.test]}\n",
		"bottles/kept.yaml": "# mine\nextends: base\nproxy: {engine: allowlist}\n\negress:\n  allow:\n    - allowed.test # the model\nruntime: runc\n",
	})
	if err := os.Chown(path, 0, owner); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	s := &steered{r.start(t, "kept"), "allowlist"}
	s.saves(t, path, "# the model\n    - denied.test\nruntime", "allow", "denied.test")
	if !s.gets(t, "denied.test") {
		t.Error("what was saved is not in force")
	}
	s.steer(t, "deny", "allowed.test") // for now, then for good
	s.saves(t, path, "# mine\nextends: base\nproxy: {engine: allowlist}\n\negress:\n  allow:\n    - denied.test\nruntime: runc\n", "deny", "allowed.test")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 || st.Sys().(*syscall.Stat_t).Gid != owner {
		t.Errorf("%v, %v", st, err)
	}
	s.refuses(t, path, nil, "base.test, which is in /etc/carboy/bottles/base.yaml:1", "deny", "base.test")
	s.refuses(t, path, []string{"SUDO_UID=4321", "SUDO_GID=4321"}, "sudoedit "+path, "allow", "evil.test")
	if err := os.WriteFile(path, []byte("egress: [\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	s.refuses(t, path, nil, path+":1", "allow", "evil.test")
	s.stop(t)
	plain := &steered{r.start(t, "--proxy", "allowlist", "--allow", "allowed.test"), "allowlist"}
	plain.refuses(t, path, nil, "came from flags alone", "deny", "allowed.test")
	plain.stop(t)
}

// saves changes the policy, and finds a part in the manifest.
func (s *steered) saves(t *testing.T, path, part, do, host string) {
	t.Helper()
	if out := s.rig.mustRun(t, "egress", do, "--save", s.name, host); out != "saved "+path+"\n" {
		t.Errorf("%q", out)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), part) {
		t.Errorf("after %s of %s: %v\n%s", do, host, err, text)
	}
}

// refuses changes neither the policy nor the manifest.
func (s *steered) refuses(t *testing.T, path string, env []string, why, do, host string) {
	t.Helper()
	hosts := s.show(t).Hosts
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := s.rig.command(t, "egress", do, "--save", s.name, host)
	c.Env = append(c.Env, env...)
	if o := finish(t, c); o.code == 0 || !strings.Contains(o.stderr, "nothing was changed") || !strings.Contains(o.stderr, why) {
		t.Errorf("%s of %s: %v", do, host, o)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(text) || !slices.Equal(s.show(t).Hosts, hosts) {
		t.Errorf("%s of %s changed something: %v\n%s", do, host, err, now)
	}
}
