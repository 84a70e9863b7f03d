package test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"

	"carboy/test/world"
)

const imageName = "carboy.test/busybox:latest"

// runTime bounds one command line of a test.
const runTime = 90 * time.Second

// rig is the private host as one test uses it: one containerd, with a
// namespace of its own.
type rig struct {
	*world.World
	containerd *world.Containerd
	namespace  string
	carboy     string // another binary than the shared one
	before     world.Host
}

var namespaceCount atomic.Int32

// onEach runs a test on every containerd of the support range.
func onEach(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	needRoot(t)
	for i := range shared.machines {
		t.Run(shared.machines[i].Version.Name, func(t *testing.T) { f(t, newRig(t, i)) })
	}
}

// onEachRuntime runs it under each runtime, too.
func onEachRuntime(t *testing.T, f func(t *testing.T, r *rig, runtime string)) {
	t.Helper()
	onEach(t, func(t *testing.T, r *rig) {
		for _, runtime := range runtimes {
			t.Run(runtime, func(t *testing.T) { f(t, r, runtime) })
		}
	})
}

func needRoot(t *testing.T) {
	t.Helper()
	if !*root {
		t.Skip(howto)
	}
}

// newRig checks after the test that the host is as before. The first of the
// containerds is Debian's and gets Debian's CNI plugins.
func newRig(t *testing.T, machine int) *rig {
	t.Helper()
	needRoot(t)
	return newRigOn(t, shared.machines[machine])
}

func newRigOn(t *testing.T, c *world.Containerd) *rig {
	t.Helper()
	r := &rig{World: shared.world, containerd: c,
		namespace: fmt.Sprintf("test-%d", namespaceCount.Add(1))}
	r.importImage(t, shared.archive)
	// What the first use of a host leaves for good: the logs' directory, the
	// runtime's probe.
	r.mustRun(t, "run", "--yes", "--image", imageName, "--proxy", "allowlist", "--runtime", "runsc", "--", "true")
	r.Reset()
	var err error
	if r.before, err = r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.checkClean(t) })
	return r
}

func (r *rig) importImage(t testing.TB, archive string) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), r.namespace)
	if _, err := r.containerd.Import(ctx, archive); err != nil {
		t.Fatal(err)
	}
}

// checkClean fails the test for everything that the host has more or less.
func (r *rig) checkClean(t *testing.T) {
	t.Helper()
	diff, err := r.WaitClean(context.WithoutCancel(t.Context()), r.before)
	if diff != "" || err != nil {
		t.Errorf("the host is not as before: %v\n%s", err, diff)
	}
}

// command is a command line of carboy that has not been started.
func (r *rig) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return r.commandFor(t, runTime, args...)
}

func (r *rig) commandFor(t testing.TB, limit time.Duration, args ...string) *exec.Cmd {
	t.Helper()
	// Beyond the test's own context, which ends before its clean-up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	t.Cleanup(cancel)
	c, err := r.containerd.Carboy(ctx, cmp.Or(r.carboy, shared.carboy), r.namespace, args...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// outcome is how a command line ended.
type outcome struct {
	code           int
	stdout, stderr string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit %d\nstdout: %s\nstderr: %s", o.code, o.stdout, o.stderr)
}

// run runs carboy with an empty input.
func (r *rig) run(t testing.TB, args ...string) outcome {
	t.Helper()
	return finish(t, r.command(t, args...))
}

func finish(t testing.TB, c *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func (r *rig) mustRun(t testing.TB, args ...string) string {
	t.Helper()
	o := r.run(t, args...)
	if o.code != 0 {
		t.Fatalf("carboy %s: %v", strings.Join(args, " "), o)
	}
	return o.stdout
}

// bottle is the beginning of a command line that runs one.
func bottle(flags ...string) []string {
	return append([]string{"run", "--yes", "--image", imageName, "--proxy", "allowlist", "--runtime", "runc"}, flags...)
}

// attempt is a line of the probe's output.
type attempt struct {
	What, Target, Err string
	OK                bool
	Value             any
}

func (a attempt) String() string { return fmt.Sprintf("%s %s: %v %s", a.What, a.Target, a.OK, a.Err) }

func attempts(t *testing.T, out string) (all []attempt) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(out))
	for d.More() {
		var a attempt
		if err := d.Decode(&a); err != nil {
			t.Fatalf("the probe said %q: %v", out, err)
		}
		all = append(all, a)
	}
	return all
}

// live is a bottle whose agent runs until its input ends.
type live struct {
	rig    *rig
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *lockedBuffer
	done   chan struct{}
}

// start brings up a bottle and returns when its agent runs. The test ends it
// if stop has not.
func (r *rig) start(t *testing.T, flags ...string) *live {
	t.Helper()
	l := &live{rig: r, stderr: &lockedBuffer{}, done: make(chan struct{})}
	args := append(bottle(), flags...)
	l.cmd = r.command(t, append(args, "--", "sh", "-c", `echo "$CARBOY"; exec cat`)...)
	var err error
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	said, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.cmd.Stderr = l.stderr
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	n, err := said.Read(line)
	if err != nil {
		_ = l.cmd.Wait()
		t.Fatalf("no agent: %v\n%s", err, l.stderr)
	}
	l.name = strings.TrimSpace(string(line[:n]))
	go func() {
		_, _ = io.Copy(io.Discard, said)
		_ = l.cmd.Wait()
		close(l.done)
	}()
	t.Cleanup(func() { l.stop(t) })
	return l
}

// stop ends the agent's input, and with it the agent.
func (l *live) stop(t *testing.T) {
	t.Helper()
	_ = l.stdin.Close()
	l.ended(t)
}

// ended waits for carboy's own end.
func (l *live) ended(t *testing.T) {
	t.Helper()
	select {
	case <-l.done:
	case <-time.After(runTime):
		t.Fatalf("bottle %s does not end\n%s", l.name, l.stderr)
	}
}

// exec runs a further command in the bottle.
func (l *live) exec(t *testing.T, args ...string) outcome {
	t.Helper()
	return l.rig.run(t, append([]string{"exec", l.name, "--"}, args...)...)
}

// inspected is what tests use of `carboy inspect`.
type inspected struct {
	Name, Instance, State, RunDir, ProxyLog, Digest, Authority string
	PIDs                                                       []int
}

func (l *live) inspect(t *testing.T) (i inspected) {
	t.Helper()
	if err := json.Unmarshal([]byte(l.rig.mustRun(t, "inspect", l.name)), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// hostTool runs a program of the private host.
func hostTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
