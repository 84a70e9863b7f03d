package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"carboy/test/world"
)

// victim is the bottle that is killed again and again. Its name is pinned, so
// that what is left of one is in the way of the next.
func victim(runtime string) []string {
	return bottle("--name", "victim", "--runtime", runtime, "--allow", "allowed.test", "--", "echo", "it ran")
}

// randomKills is for each containerd.
func randomKills() int {
	if *soak {
		return 150
	}
	return 8
}

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
		for i := range randomKills() {
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

// TestKilledDetached ends the supervisor of a bottle in the background, before
// and after its caller has heard of it.
func TestKilledDetached(t *testing.T) {
	r := newRig(t, 1)
	for i, line := range []string{"begin claim", "begin network", "begin agent start", "begin agent command", "end agent command"} {
		x := r.follow(t, bottle("-d", "--name", "victim", "--runtime", runtimes[i%2], "--", "sleep", "1000")...)
		first := x.await("begin claim")
		supervisor := strings.TrimSpace(hostTool(t, "pgrep", "-P", fmt.Sprint(x.cmd.Process.Pid)))
		if !first || line != "begin claim" && !x.await(line) {
			t.Fatalf("not seen: %s: %s", line, x.output.String())
		}
		hostTool(t, "kill", "-KILL", supervisor)
		_ = x.cmd.Wait() // 0 where it has heard
		if code := x.cmd.ProcessState.ExitCode(); code != 0 && code != 125 {
			t.Errorf("%s: the caller ended with %d: %s", line, code, x.output.String())
		}
		r.sweep(t, line)
		if diff, err := r.WaitClean(t.Context(), r.before); err != nil || diff != "" {
			t.Fatalf("%s: %v\n%s", line, err, diff)
		}
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
		for i, line := range []string{"begin network", "begin agent start", "end agent command", "begin remove network"} {
			runtime := runtimes[i%2]
			x := r.follow(t, victim(runtime)...)
			if !x.await(line) || !x.kill() {
				t.Fatalf("%s: not killed: %s", line, x.output.String())
			}
			r.runAgain(t, runtime+", "+line)
		}
		l := r.start(t, "--name", "victim")
		shim := parent(t, l.inspect(t).PIDs[1])
		if err := errors.Join(syscall.Kill(shim, syscall.SIGSTOP), l.cmd.Process.Kill()); err != nil {
			t.Fatal(err)
		}
		l.ended(t)
		r.runAgain(t, "shim that hangs")
	})
}

// runAgain is the same run right after its forerunner was killed.
func (r *rig) runAgain(t *testing.T, when string) {
	t.Helper()
	if o := r.run(t, victim("runc")...); o.code != 0 || o.stdout != "it ran\n" {
		t.Errorf("%s: the same run again: %v", when, o)
	}
	r.sweep(t, when)
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

// TestGC sweeps what is dead and nothing else.
func TestGC(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		elsewhere := *r
		elsewhere.namespace += "-other"
		elsewhere.importImage(t, shared.archive)
		r.importImages(t) // looks again
		live := r.start(t, "--name", "live")
		r.makeForeign(t)
		none := r.lasting(t)
		elsewhere.makeDead(t)
		one := r.lasting(t)
		instance := r.makeDead(t)
		two := r.lasting(t)
		r.checkDryRun(t, instance)
		r.checkSince(t, "--dry-run", two)
		if got := r.sweptBy(t, "gc", "--json"); len(got) != 1 || got[0].Kind != "bottle" || got[0].Name != "victim" || got[0].Took <= 0 || len(got[0].Steps) < 5 {
			t.Errorf("swept %+v", got)
		}
		r.checkSince(t, "gc", one)
		if got := r.sweptBy(t, "gc", "--json"); len(got) != 0 {
			t.Errorf("swept again: %+v", got)
		}
		if got := elsewhere.sweptBy(t, "gc", "--json"); len(got) != 1 || got[0].Name != "victim" {
			t.Errorf("in the other namespace: swept %+v", got)
		}
		r.checkSince(t, "both", none)
		if o := live.exec(t, "echo", "alive"); o.stdout != "alive\n" {
			t.Errorf("the live bottle: %v", o)
		}
		live.stop(t)
	})
}

// makeDead leaves a bottle without a supervisor, and returns its instance when
// all has ended that ends by itself.
func (r *rig) makeDead(t *testing.T) string {
	t.Helper()
	x := r.follow(t, victim("runc")...)
	if !x.await("end agent command") || !x.kill() {
		t.Fatalf("not killed: %s", x.output.String())
	}
	instance := (&live{rig: r, name: "victim"}).inspect(t).Instance
	eventually(t, "the dead bottle's processes are gone", func() bool { return len(processesOf(t, instance)) == 0 })
	return instance
}

// lasting is what does not go by itself when a bottle's processes end.
func (r *rig) lasting(t *testing.T) world.Host {
	t.Helper()
	h, err := r.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"processes", "network namespaces", "links", "addresses", "routes"} {
		delete(h, subject)
	}
	return h
}

func (r *rig) checkSince(t *testing.T, what string, before world.Host) {
	t.Helper()
	if diff := world.Diff(before, r.lasting(t)); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
	}
}

// swept is a line of gc's JSON, by its names.
type swept struct {
	Name, Instance, Kind string
	Took                 time.Duration
	Steps                []struct{ Name string }
}

func (r *rig) sweptBy(t *testing.T, args ...string) (list []swept) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.mustRun(t, args...)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func (r *rig) checkDryRun(t *testing.T, instance string) {
	t.Helper()
	if out := r.mustRun(t, "gc", "--dry-run"); out != "would remove bottle victim\n" {
		t.Errorf("--dry-run says %q", out)
	}
	if got := r.sweptBy(t, "gc", "--dry-run", "--json"); len(got) != 1 || got[0].Kind != "bottle" || got[0].Instance != instance {
		t.Errorf("--dry-run --json says %+v, for %s", got, instance)
	}
}

// makeForeign makes records that are not carboy's, one with a name as if. They
// stay for as long as the test.
func (r *rig) makeForeign(t *testing.T) {
	t.Helper()
	client, ctx := r.client(t)
	for id, labels := range map[string]map[string]string{
		"foreign": nil, "carboy-foreign": nil, "labelled": {"containerd.io/gc.expire": time.Now().Add(time.Hour).Format(time.RFC3339)},
	} {
		r.lease(t, id, labels)
	}
	foreign, err := client.NewContainer(ctx, "foreign", containerd.WithSpec(&oci.Spec{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := foreign.Delete(ctx); err != nil {
			t.Errorf("the foreign container: %v", err)
		}
	})
}

// client lives as long as the test, and so does its context.
func (r *rig) client(t testing.TB) (*containerd.Client, context.Context) {
	t.Helper()
	client, err := r.containerd.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client, namespaces.WithNamespace(context.WithoutCancel(t.Context()), r.namespace)
}

// lease makes one that must be there at the test's end.
func (r *rig) lease(t *testing.T, id string, labels map[string]string) {
	t.Helper()
	client, ctx := r.client(t)
	l, err := client.LeasesService().Create(ctx, leases.WithID(id), leases.WithLabels(labels))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.LeasesService().Delete(ctx, l); err != nil {
			t.Errorf("lease %s: %v", id, err)
		}
	})
}

// TestGCUnknownLayout: what another version made is told and never touched,
// and does not keep gc from the rest.
func TestGCUnknownLayout(t *testing.T) {
	r := newRig(t, 1)
	r.makeDead(t)
	r.lease(t, "carboy-future", map[string]string{"carboy/layout": "99", "carboy/record": `{"layout":99}`})
	r.lease(t, "carboy-broken", map[string]string{"carboy/layout": "1", "carboy/record": `{"layout":`})
	for _, args := range [][]string{{"gc", "--dry-run"}, {"ls"}, {"gc"}, {"gc"}} {
		o := r.run(t, args...)
		if o.code != 1 || !strings.Contains(o.stderr, `lease carboy-future has layout "99"`) || !strings.Contains(o.stderr, "carboy-broken") {
			t.Errorf("%v: %v", args, o)
		}
	}
	if o := r.run(t, "ls", "--json"); o.stdout != "[]\n" {
		t.Errorf("the dead bottle: %v", o)
	}
	if o := r.run(t, victim("runc")...); o.code != 0 || o.stdout != "it ran\n" {
		t.Errorf("a run beside them: %v", o)
	}
}
