package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"carboy/test/world"
)

// proved is a row of `carboy verify --json`.
type proved struct{ Bottle, Probe, Result, Seen string }

// verify runs it and returns, by bottle, all rows and the probes that failed.
// What proved nothing is an error.
func (r *rig) verify(t *testing.T, args ...string) (all []proved, failed map[string][]string) {
	t.Helper()
	o := r.run(t, append([]string{"verify", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(o.stdout), &all); err != nil || len(all) == 0 || o.stderr != "" {
		t.Fatalf("%v: %v", err, o)
	}
	failed = map[string][]string{}
	want := 0
	for _, p := range all {
		switch p.Result {
		case "PASS":
		case "FAIL":
			want = 1
			failed[p.Bottle] = append(failed[p.Bottle], p.Probe)
		default:
			t.Errorf("%+v", p)
		}
	}
	if o.code != want {
		t.Errorf("status %d, want %d: %v", o.code, want, o)
	}
	return all, failed
}

// TestVerify: a sound bottle passes every probe, whatever its engine and its
// user; what cannot be looked at is no proof; and nothing is left behind.
func TestVerify(t *testing.T) {
	r := newRig(t, 0)
	for _, runtime := range runtimes {
		t.Run(runtime, func(t *testing.T) {
			checkSound(t, r, runtime)
			checkGated(t, r, runtime)
		})
	}
	checkUnproved(t, r)
}

func checkSound(t *testing.T, r *rig, runtime string) {
	for i, engine := range engines(t) {
		l := r.start(t, append(engineFlags(engine), "--runtime", runtime, "--user", []string{"root", ""}[i], "--allow", "allowed.test", "--cpus", "1")...)
		checkInterrupted(t, r, l.name)
		r.Reset()
		start := time.Now()
		all, failed := r.verify(t, l.name)
		if took := time.Since(start); len(failed) > 0 || took > 5*time.Second {
			t.Errorf("%s, in %v: %v of %v", engine, took, failed, all)
		}
		if err := r.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, a := range r.Arrivals("") { // of the one tunnel
			if a.Server != "internet/dns" && a.Server != "internet/https" {
				t.Errorf("%s: arrived: %+v", engine, a)
			}
		}
		for _, p := range r.Packets(world.AtLAN) {
			if p.Protocol != "arp" && p.Port != 9 {
				t.Errorf("%s: a packet left the host: %v", engine, p)
			}
		}
		for _, change := range [][]string{{"allow", l.name, "tcp:other.test:8443"}, {"pause", l.name}} {
			r.mustRun(t, append([]string{"egress"}, change...)...)
			if _, failed := r.verify(t, l.name); len(failed) > 0 {
				t.Errorf("%s, after %v: %v", engine, change, failed)
			}
		}
		l.stop(t)
	}
}

// checkInterrupted ends verify while its process is in the container.
func checkInterrupted(t *testing.T, r *rig, name string) {
	t.Helper()
	inside := func() bool { return strings.Contains(r.mustRun(t, "top", name), "carboy-init verify") }
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		c := r.command(t, "verify", name)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its process is in the container", inside)
		if err := c.Process.Signal(signal); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err == nil {
			t.Errorf("it ended well, by %v", signal)
		}
		eventually(t, "its process has gone", func() bool { return !inside() })
	}
}

func checkUnproved(t *testing.T, r *rig) {
	t.Helper()
	l := r.start(t, "--allow", "nowhere.test")
	if o := r.run(t, "verify", "-q", l.name); o.code != 2 || o.stdout != l.name+" agent-allowed\n" {
		t.Errorf("a control that does not answer: %v", o)
	}
	o := r.run(t, "verify", "none", l.name)
	if o.code != 2 || !strings.Contains(o.stderr, "no bottle named none") || strings.Count(o.stdout, "UNKNOWN") != 1 || strings.Contains(o.stdout, "FAIL") {
		t.Errorf("a bottle that is not there, beside one: %v", o)
	}
	if o := r.run(t, "verify"); o.code != 2 || !strings.Contains(o.stderr, "--all") {
		t.Errorf("no bottle: %v", o)
	}
	l.stop(t)
}

// checkGated: an agent starts when all is proved, and not at all else.
func checkGated(t *testing.T, r *rig, runtime string) {
	t.Helper()
	gate := append(bottle("--gate"), "--runtime", runtime)
	if out := r.mustRun(t, append(gate, "--allow", "allowed.test", "--", "echo", "it ran")...); out != "it ran\n" {
		t.Errorf("a sound bottle: %q", out)
	}
	manifests(t, map[string]string{
		"bottles/gated.yaml": "image: " + imageName + "\ngate: true\nproxy: {engine: allowlist}\negress: {allow: [nowhere.test]}\n",
		"agents/gated.md":    "---\nbottle: gated\ncommand: [echo, it ran]\n---\n",
	})
	for _, args := range [][]string{append(gate, "--allow", "nowhere.test", "--", "echo", "it ran"), {"run", "--yes", "--runtime", runtime, "gated"}} {
		o := r.run(t, args...)
		if o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "the agent was not started") || !strings.Contains(o.stderr, "agent-allowed: UNKNOWN: nowhere.test:443") {
			t.Errorf("a control that does not answer: %v: %v", args, o)
		}
	}
	r.checkClean(t)
}

// groupFile is a file of a bottle's control group, in either version.
func groupFile(t *testing.T, instance, controller, file string) string {
	t.Helper()
	for _, dir := range []string{filepath.Join("/sys/fs/cgroup", controller), "/sys/fs/cgroup"} {
		if path := filepath.Join(dir, "carboy-"+instance+"-a", file); exists(path) {
			return path
		}
	}
	t.Fatalf("no file %s of the agent's control group", file)
	return ""
}
