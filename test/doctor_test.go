package test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

type findings struct {
	Level  string
	Checks []struct{ Check, Level, Found, Out string }
	Fixed  []string
}

func (f findings) of(t *testing.T, check string) (level, text string) {
	t.Helper()
	for _, c := range f.Checks {
		if c.Check == check {
			return c.Level, c.Found + " -> " + c.Out
		}
	}
	t.Fatalf("no check %s in %+v", check, f)
	return "", ""
}

// doctor runs it with variables that go over those of the rig.
func (r *rig) doctor(t *testing.T, env []string, args ...string) findings {
	t.Helper()
	c := r.command(t, append([]string{"doctor", "--json"}, args...)...)
	c.Env = append(c.Env, env...)
	o := finish(t, c)
	var f findings
	if err := json.Unmarshal([]byte(o.stdout), &f); err != nil {
		t.Fatalf("%v: %v", err, o)
	}
	if want := map[string]int{"ok": 0, "warn": 1, "fail": 2}[f.Level]; o.code != want || o.stderr != "" {
		t.Errorf("status %d, want %d: %v", o.code, want, o)
	}
	return f
}

// TestDoctor: nothing fails on a sound host, and each thing that is broken is
// found by the check that was well before.
func TestDoctor(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		sound := r.doctor(t, nil)
		for _, c := range sound.Checks {
			if c.Level == "fail" {
				t.Errorf("on a sound host %+v", c)
			}
		}
		for _, b := range []struct {
			check, level, says string
			env, args          []string
		}{
			{"cni", "fail", "apt install containernetworking-plugins", nil, []string{"--cni-bin-dir", t.TempDir()}},
			{"runsc", "warn", "runsc is not installed", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, nil},
			{"snapshotter", "fail", "nosuch cannot be used", nil, []string{"--snapshotter", "nosuch"}},
			{"range", "fail", "link-local", nil, []string{"--egress-range", "169.254.0.0/16"}},
			{"directories", "fail", "not on a tmpfs", nil, []string{"--state-dir", "/usr/carboy-doctor"}},
		} {
			r.checkFinds(t, sound, r.doctor(t, b.env, b.args...), b.check, b.level, b.says)
		}
		r.doctorFirewall(t, sound)
		r.doctorLeftovers(t, sound)
		r.doctorContainerd(t, sound)
	})
}

func (r *rig) checkFinds(t *testing.T, sound, broken findings, check, level, says string) {
	t.Helper()
	if was, text := sound.of(t, check); was != "ok" {
		t.Errorf("%s on a sound host: %s, %s", check, was, text)
	}
	if got, text := broken.of(t, check); got != level || !strings.Contains(text, says) {
		t.Errorf("%s: %s %q, want %s with %q", check, got, text, level, says)
	}
}

// doctorFirewall: carboy opens it at the start of a bottle, so it is no fault.
func (r *rig) doctorFirewall(t *testing.T, sound findings) {
	hostTool(t, "nft", "add table ip doctor; add chain ip doctor f { type filter hook forward priority 0; policy drop; }")
	found := r.doctor(t, nil)
	hostTool(t, "nft", "delete table ip doctor")
	r.checkFinds(t, sound, found, "firewall", "ok", `in chain "ip doctor f"`)
	// What no policy shows.
	const table = "add table ip doctor; add chain ip doctor f { type filter hook forward priority 0; }; "
	hostTool(t, "nft", table+"add rule ip doctor f ip saddr 10.77.0.0/16 udp dport 53 counter drop")
	dropped := r.doctor(t, nil, "--packet")
	counted := hostTool(t, "nft", "list table ip doctor")
	hostTool(t, "nft", "delete table ip doctor")
	r.checkFinds(t, r.doctor(t, nil, "--packet"), dropped, "uplink", "fail", "answers the host and not a bottle")
	if !strings.Contains(counted, "packets 2 ") {
		t.Errorf("not both questions were dropped: %s", counted)
	}
	if _, text := sound.of(t, "firewall"); strings.Contains(text, "chain \"") {
		t.Errorf("a barrier where there is none: %s", text)
	}
}

func (r *rig) doctorLeftovers(t *testing.T, sound findings) {
	l := r.start(t)
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	l.ended(t)
	r.checkFinds(t, sound, r.doctor(t, nil), "leftovers", "warn", "bottle "+l.name)
	dir := "/run/carboy-doctor"
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	fixed := r.doctor(t, nil, "--fix", "--data-dir", dir)
	r.checkFinds(t, sound, fixed, "leftovers", "ok", "none")
	if did := strings.Join(fixed.Fixed, "\n"); !strings.Contains(did, "removed bottle "+l.name) || !strings.Contains(did, "made "+dir) {
		t.Errorf("fixed: %q", did)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v %v", dir, st, err)
	}
	if again := r.doctor(t, nil, "--fix", "--data-dir", dir); len(again.Fixed) > 0 {
		t.Errorf("fixed again: %q", again.Fixed)
	}
}

func (r *rig) doctorContainerd(t *testing.T, sound findings) {
	t.Cleanup(func() { r.restart(t) })
	if err := r.containerd.Kill(); err != nil {
		t.Fatal(err)
	}
	broken := r.doctor(t, nil)
	r.restart(t)
	r.checkFinds(t, sound, broken, "containerd", "fail", "nothing answers at containerd's socket "+r.containerd.Address)
	r.checkFinds(t, sound, broken, "runc", "warn", "not looked at")
}
