package test

import (
	"strings"
	"testing"

	"carboy/runtime/initproto"
	"carboy/test/world"
)

// next is the same host for a carboy that was installed while bottles live.
func (r *rig) next(t *testing.T, protocol int) *rig {
	t.Helper()
	other := *r
	var err error
	if other.carboy, err = world.BuildNext(t.Context(), t.TempDir(), protocol); err != nil {
		t.Fatal(err)
	}
	return &other
}

// TestUpgrade: a bottle of the build before goes on as ever, also for the new
// one's commands.
func TestUpgrade(t *testing.T) {
	r := newRig(t, 1)
	name := r.detach(t, "-i", "--", "sh", "-c", greeter)
	next := r.next(t, initproto.Version)
	if o := next.run(t, "exec", name, "echo", "inside"); o.code != 0 || o.stdout != "inside\n" {
		t.Errorf("exec: %v", o)
	}
	checkLives(t, next, name)
	if o := next.run(t, "stop", name); o.code != 0 {
		t.Errorf("stop: %v", o)
	}
	r.checkClean(t)
}

// TestOtherProtocol: one that speaks otherwise says which build is needed, does
// not harm the bottle, and can remove it.
func TestOtherProtocol(t *testing.T) {
	r := newRig(t, 1)
	name := r.detach(t, "-i", "--", "sh", "-c", greeter)
	next := r.next(t, initproto.Version+1)
	for _, args := range [][]string{{"exec", name, "true"}, {"attach", "--no-stdin", name}} {
		if o := next.run(t, args...); o.code == 0 || !strings.Contains(o.stderr, `the other side is of build "devel"`) {
			t.Errorf("%s: %v", args[0], o)
		}
	}
	checkLives(t, next, name)
	if o := r.run(t, "exec", name, "echo", "inside"); o.code != 0 || o.stdout != "inside\n" {
		t.Errorf("exec of its own build: %v", o)
	}
	if o := next.run(t, "rm", "-f", name); o.code != 0 {
		t.Errorf("rm: %v", o)
	}
	r.checkClean(t)
}

func checkLives(t *testing.T, r *rig, name string) {
	t.Helper()
	if o := r.run(t, "gc"); o.code != 0 || strings.Contains(o.stdout, name) {
		t.Errorf("gc: %v", o)
	}
	if list := r.ls(t); len(list) != 1 || list[0].Name != name || list[0].State != "running" {
		t.Errorf("ls: %+v", list)
	}
	if o := r.run(t, "logs", name); o.code != 0 || !strings.Contains(o.stdout, "hello") {
		t.Errorf("logs: %v", o)
	}
}
