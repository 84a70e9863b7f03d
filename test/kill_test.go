package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"carboy/test/world"
)

// victim is the bottle that is killed again and again. Its name is pinned, so
// that what is left of one is in the way of the next.
func victim(runtime string) []string {
	return bottle("--name", "victim", "--runtime", runtime, "--allow", "allowed.test", "--", "echo", "it ran")
}

const randomKills = 8

// TestKilled ends carboy at every step of a bring-up and a tear-down, and at
// moments between. Then gc makes the host what it was.
func TestKilled(t *testing.T) {
	kills := 0
	onEach(t, func(t *testing.T, r *rig) {
		lines, took := r.steps(t, victim("runc")...)
		for i, line := range lines {
			runtime := runtimes[(i/2+kills)%2]
			x := r.follow(t, victim(runtime)...)
			if !x.await(line) {
				t.Errorf("%s, %s: not seen: %s", runtime, line, x.output.String())
			}
			kills += r.afterKill(t, runtime+", "+line, x)
		}
		for i := range randomKills {
			runtime := runtimes[i%2]
			moment := rand.N(took * 3 / 4) // the first is slower than the next
			x := r.follow(t, victim(runtime)...)
			<-time.After(moment) // the moment is the subject
			kills += r.afterKill(t, fmt.Sprintf("%s, after %v", runtime, moment), x)
		}
		for _, runtime := range runtimes {
			if o := r.run(t, victim(runtime)...); o.code != 0 || o.stdout != "it ran\n" {
				t.Errorf("the same run with %s afterwards: %v", runtime, o)
			}
		}
	})
	if *root && kills < 30 {
		t.Errorf("%d kills were in time", kills)
	}
}

// afterKill kills carboy, sweeps and returns the number of kills.
func (r *rig) afterKill(t *testing.T, when string, x *traced) int {
	t.Helper()
	if !x.kill() {
		t.Logf("%s: it had ended", when)
		return 0
	}
	r.sweep(t, when)
	diff, err := r.WaitClean(t.Context(), r.before)
	if err != nil || diff != "" {
		t.Fatalf("%s: killed, and after gc the host is not as before: %v\n%s", when, err, diff)
	}
	return 1
}

// sweep runs gc, and once more when that fails: a plugin of the killed may not
// have ended yet.
func (r *rig) sweep(t *testing.T, when string) {
	t.Helper()
	first := r.run(t, "gc")
	if first.code == 0 {
		return
	}
	t.Logf("%s: gc has to be run again: %v", when, first)
	if again := r.run(t, "gc"); again.code != 0 {
		t.Errorf("%s: gc: %v", when, again)
	}
}

// TestKilledUnswept runs the same bottle again with nothing done about the
// killed one.
func TestKilledUnswept(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, line := range []string{"begin network", "begin agent start", "end agent command", "begin remove network"} {
			x := r.follow(t, victim("runc")...)
			if !x.await(line) || !x.kill() {
				t.Fatalf("%s: not killed: %s", line, x.output.String())
			}
			if o := r.run(t, victim("runc")...); o.code != 0 || o.stdout != "it ran\n" {
				t.Errorf("%s: the same run again: %v", line, o)
			}
			r.sweep(t, line)
		}
	})
}

// stubborn ignores what can be ignored, in two sessions.
const stubborn = `trap "" HUP INT TERM; setsid sleep 1000 & echo "$CARBOY"; while :; do sleep 0.1; done`

// orphanTime is how long an agent may outlive its supervisor.
const orphanTime = 2 * time.Second

// TestDiesWithSupervisor: nobody has to sweep for an agent to be gone.
func TestDiesWithSupervisor(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, runtime := range runtimes {
			t.Run(runtime, func(t *testing.T) {
				p := newPiped(t, r.command(t, bottle("--runtime", runtime, "--", "sh", "-c", stubborn)...))
				l := &live{rig: r, name: strings.TrimSpace(p.line(t))}
				i := l.inspect(t)
				if inside := processesOf(t, i.Instance); !slices.Contains(inside, i.PIDs[0]) || !slices.Contains(inside, i.PIDs[1]) {
					t.Fatalf("control: the processes are %v, of %v", inside, i.PIDs)
				}
				if err := p.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				killed := time.Now()
				eventually(t, "the bottle's processes are gone", func() bool { return len(processesOf(t, i.Instance)) == 0 })
				took := time.Since(killed)
				t.Logf("dead after %v", took)
				if took > orphanTime {
					t.Errorf("agent and proxy were dead %v after their supervisor, want %v", took, orphanTime)
				}
				if now := l.inspect(t); now.State != "dead" {
					t.Errorf("the bottle is %s", now.State)
				}
				p.wait(t)
				r.sweep(t, "orphan")
			})
		}
	})
}

// processesOf are the processes in the cgroups of a bottle's containers.
func processesOf(t *testing.T, instance string) (pids []int) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(groups), "carboy-"+instance) || ended(dir) {
			continue // or it has just gone
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ended tells whether a process is gone, or only waits for its parent to see
// that.
func ended(dir string) bool {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// TestProxyDies: the agent is cut off, never freed, and the user is told.
func TestProxyDies(t *testing.T) {
	r := newRig(t, 1)
	for _, runtime := range runtimes {
		t.Run(runtime+", engine", func(t *testing.T) {
			testProxyDies(t, r, runtime, func(pid int) int { return childOf(t, pid) })
		})
	}
	t.Run("carboy-init", func(t *testing.T) {
		testProxyDies(t, r, "runc", func(pid int) int { return pid })
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

func testProxyDies(t *testing.T, r *rig, runtime string, pick func(pid int) int) {
	l := r.start(t, "--runtime", runtime, "--allow", "allowed.test")
	r.Reset()
	if o := l.exec(t, "probe", "http", "http://allowed.test/"); !attempts(t, o.stdout)[0].OK || len(r.Arrivals("internet/http")) != 1 {
		t.Fatalf("control: %v", o)
	}
	i := l.inspect(t)
	killed := time.Now()
	if err := syscall.Kill(pick(i.PIDs[1]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the user is told", func() bool { return strings.Contains(l.stderr.String(), "the proxy ended") })
	if took := time.Since(killed); took > time.Second || !strings.Contains(l.stderr.String(), "the agent is cut off") {
		t.Errorf("told after %v:\n%s", took, l.stderr.String())
	}
	eventually(t, "the proxy's log tells", func() bool {
		b, err := os.ReadFile(i.ProxyLog)
		return err == nil && strings.Contains(string(b), "the proxy ended")
	})
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

// talker is an agent that answers line by line.
type talker struct {
	*piped
	live
}

func (r *rig) talk(t *testing.T, flags ...string) *talker {
	t.Helper()
	c := r.command(t, append(bottle(flags...), "--", "sh", "-c", `echo "$CARBOY"; cat; exit 7`)...)
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := newPiped(t, c)
	return &talker{piped: p, live: live{rig: r, cmd: c, stdin: stdin, name: strings.TrimSpace(p.line(t))}}
}

func (k *talker) answers(t *testing.T, word string) {
	t.Helper()
	if _, err := k.stdin.Write([]byte(word + "\n")); err != nil {
		t.Fatal(err)
	}
	if got := k.line(t); got != word+"\n" {
		t.Errorf("asked %q, got %q", word, got)
	}
}

// end ends the agent, and returns how carboy ended.
func (k *talker) end(t *testing.T) (code int, stderr string) {
	t.Helper()
	_ = k.stdin.Close()
	k.wait(t)
	return k.piped.cmd.ProcessState.ExitCode(), k.piped.stderr.String()
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
