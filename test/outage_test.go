package test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"carboy/test/world"
)

// TestContainerdGone: nothing answers at its socket, or nothing ever comes.
func TestContainerdGone(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		t.Cleanup(func() { r.restart(t) })
		if err := r.containerd.Kill(); err != nil {
			t.Fatal(err)
		}
		o := r.run(t, actor()...)
		r.restart(t)
		r.checkNeverRan(t, o, 125, "nothing answers at containerd's socket "+r.containerd.Address)
		r.checkRan(t, r.run(t, actor()...))
	})
}

// TestProxyDies: the agent is cut off, never freed, and the user is told.
func TestProxyDies(t *testing.T) {
	r := newRig(t, 1)
	for _, runtime := range runtimes {
		t.Run(runtime+", engine", func(t *testing.T) { testEngineDies(t, r, runtime) })
	}
	t.Run("carboy-init", func(t *testing.T) {
		l := r.start(t, "--allow", "allowed.test")
		r.proxyDies(t, l, func(pid int) int { return pid })
		r.staysCutOff(t, l, "the agent stays cut off")
	})
}

func childOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	children := strings.Fields(string(b))
	if len(children) != 1 {
		// The engine may have been forked by another thread.
		children = strings.Fields(hostTool(t, "pgrep", "-P", fmt.Sprint(pid)))
	}
	child, err := strconv.Atoi(children[0])
	if err != nil || len(children) != 1 {
		t.Fatalf("children of %d: %v", pid, children)
	}
	return child
}

// testEngineDies: it is started again, with the same policy, up to a bound.
func testEngineDies(t *testing.T, r *rig, runtime string) {
	l := r.start(t, "--runtime", runtime, "--allow", "allowed.test")
	engine := func(pid int) int { return childOf(t, pid) }
	for n := range 5 {
		r.proxyDies(t, l, engine)
		eventually(t, "the proxy is up again", func() bool { return strings.Count(l.stderr.String(), "the proxy is up again") == n+1 })
	}
	o := l.exec(t, "probe", "http", "http://denied.test/")
	if got := attempts(t, o.stdout); len(got) != 1 || got[0].OK {
		t.Errorf("through the sixth engine: %v", o)
	}
	r.proxyDies(t, l, engine)
	r.staysCutOff(t, l, "the agent is cut off, for good")
}

// proxyDies kills what pick finds from the pid of the proxy's first process.
func (r *rig) proxyDies(t *testing.T, l *live, pick func(pid int) int) {
	t.Helper()
	r.Reset()
	if o := l.exec(t, "probe", "http", "http://allowed.test/"); !attempts(t, o.stdout)[0].OK {
		t.Fatalf("control: %v", o)
	}
	eventually(t, "the control arrives", func() bool { return len(r.Arrivals("internet/http")) > 0 })
	i := l.inspect(t)
	logged := func() int {
		b, _ := os.ReadFile(i.ProxyLog) // none is no line
		return strings.Count(string(b), "the proxy ended")
	}
	told, before := strings.Count(l.stderr.String(), "the proxy ended"), logged()
	killed := time.Now()
	if err := syscall.Kill(pick(i.PIDs[1]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the user is told", func() bool { return strings.Count(l.stderr.String(), "the proxy ended") > told })
	if took := time.Since(killed); took > time.Second || !strings.Contains(l.stderr.String(), "the agent is cut off") {
		t.Errorf("told after %v:\n%s", took, l.stderr.String())
	}
	eventually(t, "the proxy's log tells", func() bool { return logged() > before })
}

// staysCutOff also wants the bottle to live on.
func (r *rig) staysCutOff(t *testing.T, l *live, says string) {
	t.Helper()
	eventually(t, "carboy gives the proxy up", func() bool { return strings.Contains(l.stderr.String(), says) })
	r.checkCutOff(t, l)
	select {
	case <-l.done:
		t.Errorf("carboy did not wait for the agent:\n%s", l.stderr.String())
	default:
	}
	l.stop(t)
	if code := l.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("carboy ended with %d:\n%s", code, l.stderr.String())
	}
}

// checkCutOff tries the ways that a bottle has, and those it must not have.
func (r *rig) checkCutOff(t *testing.T, l *live) {
	t.Helper()
	r.Reset()
	o := l.exec(t, "sh", "-c", "probe http http://allowed.test/; probe tcp "+join(world.Allowed, 22)+"; probe dns "+world.Resolver+" allowed.test")
	got := attempts(t, o.stdout)
	if len(got) != 3 {
		t.Errorf("%v", o)
	}
	for _, a := range got {
		if a.OK {
			t.Errorf("without a proxy the agent reached %v", a)
		}
	}
	if err := r.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Arrivals("") {
		t.Errorf("arrived: %+v", a)
	}
}

// TestContainerdRestarts: a bottle does not need containerd to live.
func TestContainerdRestarts(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, runtime := range runtimes {
			t.Run(runtime, func(t *testing.T) { testRestart(t, r, runtime) })
		}
		t.Run("ends without containerd", func(t *testing.T) { testEndsAlone(t, r) })
	})
}

// restart makes sure that later tests have a containerd.
func (r *rig) restart(t *testing.T) {
	t.Helper()
	if r.containerd.Pid() == 0 {
		if err := r.containerd.Start(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

func testRestart(t *testing.T, r *rig, runtime string) {
	t.Cleanup(func() { r.restart(t) })
	k := r.talk(t, "--runtime", runtime, "--allow", "allowed.test")
	k.answers(t, "before")
	if err := r.containerd.Kill(); err != nil {
		t.Fatal(err)
	}
	k.answers(t, "without")
	r.restart(t)
	k.answers(t, "after")
	r.Reset()
	if o := k.exec(t, "probe", "http", "http://allowed.test/"); o.code != 0 || len(r.Arrivals("internet/http")) != 1 {
		t.Errorf("the way out afterwards: %v", o)
	}
	if code, stderr := k.end(t); code != 7 || strings.Contains(stderr, "carboy:") {
		t.Errorf("carboy ended with %d:\n%s", code, stderr)
	}
	r.checkClean(t)
}

// testEndsAlone: the exit code is the agent's, what is left is told, and gc
// takes it away.
func testEndsAlone(t *testing.T, r *rig) {
	t.Cleanup(func() { r.restart(t) })
	k := r.talk(t)
	instance := k.inspect(t).Instance
	if err := r.containerd.Kill(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	code, stderr := k.end(t)
	t.Logf("it took %v", time.Since(start))
	if code != 7 || !strings.Contains(stderr, "carboy gc") {
		t.Errorf("carboy ended with %d:\n%s", code, stderr)
	}
	eventually(t, "its processes are gone", func() bool { return len(processesOf(t, instance)) == 0 })
	r.restart(t)
	r.sweep(t, "without containerd")
	r.checkClean(t)
}
