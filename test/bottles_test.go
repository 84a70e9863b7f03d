package test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
)

// listed is a line of `carboy ls --json`.
type listed struct {
	Name, Instance, Agent, Image, Runtime, Proxy, State, Owner string
	PID                                                        int
	ExitCode                                                   *int
	Created, Ended                                             time.Time
}

func (r *rig) ls(t *testing.T, flags ...string) (list []listed) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.mustRun(t, append([]string{"ls", "--json"}, flags...)...)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestBottles has two of one image at once and does to them what can be done.
func TestBottles(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		// The first of a host's namespaces makes a mount that stays.
		hostTool(t, "ip", "netns", "add", foreignNetns)
		hostTool(t, "ip", "netns", "delete", foreignNetns)
		r.asBefore(t)
		if list := r.ls(t); len(list) != 0 {
			t.Errorf("bottles on an empty host: %v", list)
		}
		one, two := r.start(t), r.start(t)
		if one.name != "busybox" || two.name != "busybox-2" {
			t.Errorf("they are named %s and %s", one.name, two.name)
		}
		checkTaken(t, r, one)
		checkListed(t, r, one, two)
		checkInspected(t, one, two)
		checkExec(t, one)
		checkLeftAlone(t, r, one, two)
		checkRemoved(t, r, two)
		one.stop(t)
		if code := one.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("the other bottle ended with %d:\n%s", code, one.stderr)
		}
	})
}

func checkTaken(t *testing.T, r *rig, l *live) {
	t.Helper()
	o := r.run(t, bottle("--name", l.name, "--", "echo", "it ran")...)
	if o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "a bottle named "+l.name+" is there already") {
		t.Errorf("a pinned name that is taken: %v", o)
	}
	if o := l.exec(t, "true"); o.code != 0 {
		t.Errorf("its bottle does not live on: %v", o)
	}
}

func checkListed(t *testing.T, r *rig, bottles ...*live) {
	t.Helper()
	list := r.ls(t)
	if len(list) != len(bottles) {
		t.Fatalf("%d bottles are listed, want %d: %v", len(list), len(bottles), list)
	}
	table := strings.Split(r.mustRun(t, "ls"), "\n")
	if got := strings.Join(strings.Fields(table[0]), " "); got != "NAME AGENT IMAGE RUNTIME PROXY STATE AGE OWNER" {
		t.Errorf("the head of the table is %q", got)
	}
	for i, l := range bottles {
		created := list[i].Created
		if age := time.Since(created); age < 0 || age > time.Minute {
			t.Errorf("%s was created at %v", l.name, created)
		}
		want := listed{Name: l.name, Instance: l.inspect(t).Instance, Image: imageName, Runtime: "runc", Proxy: "allowlist",
			State: "running", Owner: "root", PID: l.cmd.Process.Pid, Created: created}
		if list[i] != want {
			t.Errorf("listed is %+v, want %+v", list[i], want)
		}
		fields := strings.Fields(table[i+1])
		if !slices.Equal(slices.Concat(fields[:6], fields[len(fields)-1:]), []string{l.name, "-", imageName, "runc", "allowlist", "running", "root"}) {
			t.Errorf("the table says %q", table[i+1])
		}
	}
}

func checkInspected(t *testing.T, bottles ...*live) {
	t.Helper()
	seen := map[int]bool{}
	var images []struct{ Digest string }
	if err := json.Unmarshal([]byte(bottles[0].rig.mustRun(t, "image", "ls", "--json")), &images); err != nil || len(images) != 1 {
		t.Fatalf("%d images, %v", len(images), err)
	}
	for _, l := range bottles {
		i := l.inspect(t)
		if i.Digest != images[0].Digest {
			t.Errorf("the digest is %q, want %q", i.Digest, images[0].Digest)
		}
		if i.Name != l.name || i.State != "running" || len(i.PIDs) != 2 {
			t.Errorf("inspect says %+v", i)
		}
		for _, pid := range i.PIDs {
			if seen[pid] || syscall.Kill(pid, 0) != nil {
				t.Errorf("process %d of %s is another's, or none", pid, l.name)
			}
			seen[pid] = true
		}
		if _, err := os.Stat(i.RunDir); err != nil {
			t.Error(err)
		}
		l.exec(t, "probe", "http", "http://denied.test/")
		if log, err := os.ReadFile(i.ProxyLog); err != nil || !strings.Contains(string(log), "denied.test") {
			t.Errorf("the proxy's log is %q, %v", log, err)
		}
	}
	if o := bottles[0].rig.run(t, "inspect", "nosuch"); o.code != 1 || !strings.Contains(o.stderr, "no bottle named nosuch") {
		t.Errorf("inspect of none: %v", o)
	}
}

func checkExec(t *testing.T, l *live) {
	t.Helper()
	for _, tc := range ends {
		if o := l.exec(t, tc.command...); o.code != tc.code {
			t.Errorf("exec %v, want %d: %v", tc.command, tc.code, o)
		}
	}
	if o := l.execWith(t, []string{"-u", "root", "-w", "/tmp", "-e", "ODD=" + odd}, "sh", "-c", `id -u; pwd; printf %s "$ODD|$1|$CARBOY"`, "sh", odd); o.stdout != "0\n/tmp\n"+odd+"|"+odd+"|"+l.name {
		t.Errorf("exec with flags: %q\n%s", o.stdout, o.stderr)
	}
	for input, flags := range map[string][]string{"": nil, "line\n": {"-i"}} {
		c := l.rig.command(t, slices.Concat([]string{"exec"}, flags, []string{l.name, "cat"})...)
		c.Stdin = strings.NewReader("line\n")
		if o := finish(t, c); o.code != 0 || o.stdout != input {
			t.Errorf("exec %v: %v", flags, o)
		}
	}
	if o := l.rig.run(t, "exec", "nosuch", "true"); o.code != 125 || !strings.Contains(o.stderr, "no bottle named nosuch") {
		t.Errorf("exec in none: %v", o)
	}
	s := l.rig.open(t, "exec", "-it", l.name, "--", "sh", "-c", "stty size; echo term-$TERM; exec sh")
	before := s.termios(t)
	s.shows(t, "33 111\nterm-vt220\n")
	checkKeys(t, s)
	checkResize(t, s)
	s.typed(t, "exit 9\r")
	if code := s.ends(t); code != 9 || s.termios(t) != before {
		t.Errorf("exec -it: exit %d, terminal restored: %v", code, s.termios(t) == before)
	}
}

// foreign are things on the host that look like carboy's and are not.
type foreign struct {
	client *client.Client
	spaces []context.Context
	log    string
}

const (
	foreignLease     = "carboy-busybox-3"
	foreignContainer = "abcdefghij-a"
	foreignNetns     = "carboy-abcdefghij"
)

func newForeign(t *testing.T, r *rig) *foreign {
	t.Helper()
	c, err := r.containerd.Client()
	if err != nil {
		t.Fatal(err)
	}
	f := &foreign{client: c, log: "/var/log/carboy/notes"}
	for _, space := range []string{r.namespace, r.namespace + "-foreign"} {
		f.spaces = append(f.spaces, namespaces.WithNamespace(context.WithoutCancel(t.Context()), space))
	}
	t.Cleanup(func() { f.remove(t) })
	for _, ctx := range f.spaces {
		if _, err := c.LeasesService().Create(ctx, leases.WithID(foreignLease), leases.WithLabels(map[string]string{"owner": "somebody"})); err != nil {
			t.Fatal(err)
		}
		if _, err := c.NewContainer(ctx, foreignContainer, client.WithNewSpec(oci.WithProcessArgs("true"))); err != nil {
			t.Fatal(err)
		}
	}
	hostTool(t, "ip", "netns", "add", foreignNetns)
	if err := os.WriteFile(f.log, []byte("kept\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().AddDate(-1, 0, 0)
	if err := os.Chtimes(f.log, old, old); err != nil {
		t.Fatal(err)
	}
	return f
}

// check returns what is missing.
func (f *foreign) check(t *testing.T) {
	t.Helper()
	for _, ctx := range f.spaces {
		if found, err := f.client.LeasesService().List(ctx, "id=="+foreignLease); err != nil || len(found) != 1 {
			t.Errorf("a lease that is not carboy's: %v, %v", found, err)
		}
		if _, err := f.client.LoadContainer(ctx, foreignContainer); err != nil {
			t.Errorf("a container that is not carboy's: %v", err)
		}
	}
	for _, path := range []string{filepath.Join("/run/netns", foreignNetns), f.log} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func (f *foreign) remove(t *testing.T) {
	t.Helper()
	ignore := func(err error) {
		if err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	}
	for _, ctx := range f.spaces {
		ignore(f.client.ContainerService().Delete(ctx, foreignContainer))
		ignore(f.client.LeasesService().Delete(ctx, leases.Lease{ID: foreignLease}, leases.SynchronousDelete))
	}
	hostTool(t, "ip", "netns", "delete", foreignNetns)
	ignore(os.Remove(f.log))
	ignore(f.client.NamespaceService().Delete(f.spaces[1], namespaceOf(f.spaces[1])))
	ignore(f.client.Close())
}

func namespaceOf(ctx context.Context) string {
	name, _ := namespaces.Namespace(ctx)
	return name
}

// checkLeftAlone: gc has nothing to do.
func checkLeftAlone(t *testing.T, r *rig, bottles ...*live) {
	t.Helper()
	f := newForeign(t, r)
	for _, args := range [][]string{{"gc", "--dry-run"}, {"gc"}} {
		if out := r.mustRun(t, args...); out != "" {
			t.Errorf("carboy %v: %s", args, out)
		}
	}
	if out := r.mustRun(t, "gc", "--json"); out != "[]\n" {
		t.Errorf("gc --json: %s", out)
	}
	f.check(t)
	// Its name looks like one of ours, and is taken.
	three := r.run(t, bottle("--", "sh", "-c", "echo $CARBOY")...)
	if three.stdout != "busybox-4\n" {
		t.Errorf("a third bottle beside a lease of that name: %v", three)
	}
	f.check(t)
	checkUnknownLayout(t, r, f)
	for _, l := range bottles {
		if o := l.exec(t, "true"); o.code != 0 {
			t.Errorf("%s does not live on: %v", l.name, o)
		}
	}
}

// checkUnknownLayout has a lease of a later carboy's: it is told of and left.
func checkUnknownLayout(t *testing.T, r *rig, f *foreign) {
	t.Helper()
	const id = "carboy-later"
	service, ctx := f.client.LeasesService(), f.spaces[0]
	if _, err := service.Create(ctx, leases.WithID(id), leases.WithLabels(map[string]string{"carboy/layout": "99", "carboy/record": "{}"})); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := service.Delete(ctx, leases.Lease{ID: id}); err != nil {
			t.Errorf("a lease of a later layout: %v", err)
		}
	}()
	if o := r.run(t, "gc"); o.code != 1 || !strings.Contains(o.stderr, id) {
		t.Errorf("gc beside a lease of a later layout: %v", o)
	}
	if o := r.run(t, "rm", "-f", "later"); o.code == 0 {
		t.Errorf("rm of a bottle of a later layout: %v", o)
	}
}

func checkRemoved(t *testing.T, r *rig, l *live) {
	t.Helper()
	o := r.run(t, "rm", l.name)
	if o.code != 1 || !strings.Contains(o.stderr, "carboy rm -f "+l.name) {
		t.Errorf("rm of a running bottle: %v", o)
	}
	if o := l.exec(t, "true"); o.code != 0 {
		t.Errorf("rm without force ended it: %v", o)
	}
	if out := r.mustRun(t, "rm", "-f", l.name); out != l.name+"\n" {
		t.Errorf("rm -f says %q", out)
	}
	l.ended(t)
	if code := l.cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("carboy run ended with %d, want that of an agent ended by SIGTERM:\n%s", code, l.stderr)
	}
	if list := r.ls(t); len(list) != 1 {
		t.Errorf("after rm -f: %v", list)
	}
	if o := r.run(t, "rm", "-f", l.name); o.code != 1 || !strings.Contains(o.stderr, "no bottle named "+l.name) {
		t.Errorf("rm of none: %v", o)
	}
}

// TestAgentManifest runs an agent by its name, twice at once.
func TestAgentManifest(t *testing.T) {
	r := newRig(t, 0)
	manifests(t, map[string]string{
		"agents/worker.md": "---\nbottle: dev\ncommand: [sh, -c, 'echo \"$CARBOY\"; cat \"$CARBOY_PROMPT_FILE\"; cat']\nenv: {MODE: fast}\n---\nDo it.\n",
		"bottles/dev.yaml": "image: " + imageName + "\nruntime: runc\nproxy: {engine: allowlist}\nlimits: {memory: 64MiB}\n",
	})
	var inputs []io.Closer
	var agents []*piped
	for _, want := range []string{"worker\n", "worker-2\n"} {
		c := r.command(t, "run", "worker", "--yes")
		input, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		p := newPiped(t, c)
		inputs, agents = append(inputs, input), append(agents, p)
		if name, prompt := p.line(t), p.line(t); name != want || prompt != "Do it.\n" {
			t.Errorf("got %q and %q:\n%s", name, prompt, p.stderr.String())
		}
	}
	for _, l := range r.ls(t) {
		if l.Agent != "worker" || l.State != "running" {
			t.Errorf("listed is %+v", l)
		}
	}
	for i, p := range agents {
		_ = inputs[i].Close()
		p.wait(t)
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit %d:\n%s", code, p.stderr.String())
		}
	}
}

// manifests writes files below /etc/carboy, until the end of the test.
func manifests(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join("/etc/carboy", name)
		write(t, path, text, 0o644)
		t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(path)) })
	}
}

// TestAgentBuilt: a bottle's image is built before each start, with no work where
// nothing changed, and never taken from a registry.
func TestAgentBuilt(t *testing.T) {
	r := newRig(t, 1)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nARG WHO\nRUN echo \"one $WHO\" >/home/agent/what\n"})
	const image = "carboy.local/dev:latest"
	t.Cleanup(func() { r.unbuild(t, image) })
	bottle := func(build string) {
		t.Helper()
		manifests(t, map[string]string{
			"agents/worker.md": "---\nbottle: dev\ncommand: [cat, /home/agent/what]\n---\n",
			"bottles/dev.yaml": "runtime: runc\nproxy: {engine: allowlist}\nbuild: " + build + "\n",
		})
	}
	run := func(flags ...string) outcome {
		return r.run(t, append([]string{"run", "worker", "--yes"}, flags...)...)
	}

	bottle("{network: none}")
	if o := run(); o.code != 2 || !strings.Contains(o.stderr, "dev.yaml") || !strings.Contains(o.stderr, "context") {
		t.Errorf("without a context: %v", o)
	}
	bottle("{context: " + dir + ", network: none, args: {WHO: me}}")
	if o := run("--no-build"); o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, image) {
		t.Errorf("never built: %v", o)
	}
	if o := run(); o.stdout != "one me\n" || !strings.Contains(o.stderr, dir) {
		t.Errorf("%v", o)
	}
	first := r.images(t)[image].Digest
	if o := run("-q"); o.stdout != "one me\n" || r.images(t)[image].Digest != first {
		t.Errorf("unchanged: %v", o)
	}
	write(t, filepath.Join(dir, "Dockerfile"), "FROM "+imageName+"\nRUN echo two >/home/agent/what\n", 0o644)
	if o := run("--no-build"); o.stdout != "one me\n" {
		t.Errorf("--no-build: %v", o)
	}
	if o := run("-d"); o.code != 0 || o.stdout != "worker\n" {
		t.Errorf("changed, in the background: %v", o)
	}
	eventually(t, "its output", func() bool { return r.run(t, "logs", "worker").stdout == "two\n" })
	eventually(t, "its end", func() bool { return len(r.ls(t)) == 0 })
	write(t, filepath.Join(dir, "Dockerfile"), "FROM "+imageName+"\nRUN false\n", 0o644)
	if o := run(); o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "build failed") {
		t.Errorf("broken: %v", o)
	}
	if o := run("--image", imageName, "--", "echo", "other"); o.stdout != "other\n" {
		t.Errorf("another image: %v", o)
	}
}

// broken is a bottle that does not come up: carboy is no pipelock.
func broken(flags ...string) []string {
	args := []string{"run", "--yes", "--image", imageName, "--runtime", "runc", "--proxy", "pipelock", "--proxy-binary", shared.carboy}
	return append(append(args, flags...), "--", "echo", "it ran")
}

// TestKeep leaves a failed bring-up standing, without its agent.
func TestKeep(t *testing.T) {
	r := newRig(t, 0)
	if o := r.run(t, broken("--name", "broken")...); o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "unknown flag: --config") {
		t.Errorf("want 125 and the proxy's last words: %v", o)
	}
	r.checkClean(t)
	o := r.run(t, broken("--name", "broken", "--keep")...)
	if o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "carboy rm broken") {
		t.Fatalf("want 125 and how to remove it: %v", o)
	}
	if list := r.ls(t); len(list) != 1 || list[0].State != "kept" {
		t.Errorf("listed is %v", list)
	}
	kept := live{rig: r, name: "broken"}
	i := kept.inspect(t)
	for _, path := range []string{i.RunDir, i.ProxyLog} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("there is nothing to inspect: %v", err)
		}
	}
	if i.State != "kept" || len(i.PIDs) != 2 || i.PIDs[0] == 0 {
		t.Errorf("inspect says %+v", i)
	}
	if out := r.mustRun(t, "gc"); out != "" {
		t.Errorf("gc: %s", out)
	}
	if o := kept.exec(t, "true"); o.code != 125 || !strings.Contains(o.stderr, "kept") {
		t.Errorf("exec in a kept bottle: %v", o)
	}
	if o := r.run(t, bottle("--name", "broken", "--", "true")...); o.code != 125 {
		t.Errorf("its name is not taken: %v", o)
	}
	if out := r.mustRun(t, "rm", "broken"); out != "broken\n" {
		t.Errorf("rm says %q", out)
	}
	if list := r.ls(t); len(list) != 0 {
		t.Errorf("listed is %v", list)
	}
}

var timing = regexp.MustCompile(`^ *[0-9]+\.[0-9] ms +[0-9]+\.[0-9] ms  ([a-z].*)$`)

// TestTimings wants a line for every step, and nothing of it on stdout.
func TestTimings(t *testing.T) {
	r := newRig(t, 0)
	o := r.run(t, bottle("--timings", "--", "echo", "said")...)
	if o.code != 0 || o.stdout != "said\n" {
		t.Errorf("%v", o)
	}
	var steps []string
	for line := range strings.Lines(o.stderr) {
		if m := timing.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			steps = append(steps, m[1])
		}
	}
	for _, want := range []string{"images", "claim", "namespaces", "network", "proxy task", "proxy start", "proxy health",
		"agent task", "agent start", "agent command", "remove containers", "remove lease", "tear-down"} {
		if !slices.Contains(steps, want) {
			t.Errorf("no step %q among %q:\n%s", want, steps, o.stderr)
		}
	}
}
