package test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// under is a command line of somebody who calls sudo with limits of his own.
func (r *rig) under(t *testing.T, uid int, limits string, args ...string) outcome {
	t.Helper()
	c := r.commandOf(t, uid, "/", nil, args...)
	c.Args = append([]string{"sh", "-c", limits + `; exec "$@"`, "sh", c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
	return finish(t, c)
}

// TestRestrictedLimits: a member cannot have root's process fail where it suits
// him, by limits that he sets before he calls it.
func TestRestrictedLimits(t *testing.T) {
	r := newRig(t, 1)
	members(t, r)
	run := []string{"run", "worker", "--yes", "--name", "limited", "--", "echo", "ran"}
	// The soft ones: to raise the hard ones may take a right that a test has not.
	const nothing = "ulimit -S -f 0"
	if o := r.under(t, 0, nothing, run...); o.code == 0 || !strings.Contains(o.stderr, "file too large") {
		t.Errorf("root without a file: %v", o)
	}
	for _, limits := range []string{nothing, "ulimit -S -s 64"} {
		if o := r.under(t, dev, limits, run...); o.code != 0 || o.stdout != "ran\n" {
			t.Errorf("dev with %q: %v", limits, o)
		}
		if o := r.as(t, dev, "/", nil, "logs", "limited"); o.stdout != "ran\n" {
			t.Errorf("the log with %q: %v", limits, o)
		}
	}
	// with which no library can be opened, and getent(1) tells nothing
	if o := r.under(t, dev, "ulimit -S -n 3", "image", "ls"); !strings.HasPrefix(o.stderr, "carboy: group agents may not use") {
		t.Errorf("whose group nobody can ask for: %v", o)
	}
}

// TestRestrictedNeverStops: a member's terminal does not stop a process that may
// hold what all wait for.
func TestRestrictedNeverStops(t *testing.T) {
	r := newRig(t, 1)
	members(t, r)
	for uid, name := range map[int]string{dev: "devs", eve: "eves"} {
		c := r.commandOf(t, uid, "/", nil, "run", "worker", "--yes", "--name", name)
		// of a process group whose parent could go on with it: others never stop
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		_, wait, pid := starts(t, c, "")
		t.Cleanup(func() { r.run(t, "rm", "-f", name) })
		eventually(t, "its agent runs", func() bool { return r.run(t, "exec", name, "cat", "made").code == 0 })
		if err := syscall.Kill(-pid, syscall.SIGTSTP); err != nil {
			t.Fatal(err)
		}
		if uid == eve {
			eventually(t, "eve's is stopped", func() bool { return stateOf(t, pid) == "T" })
			_ = syscall.Kill(-pid, syscall.SIGCONT)
		}
		if o := r.run(t, "stop", "-t", "1", name); o.code != 0 || stateOf(t, pid) == "T" {
			t.Errorf("%s: %v", name, o)
		}
		wait()
	}
}

// stateOf is that of a process, empty of none.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}
