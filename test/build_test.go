package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/test/world"
)

// contextOf is a directory with files by their names; a Dockerfile among them.
func contextOf(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// unbuild removes what builds leave on purpose: images, and the cache.
func (r *rig) unbuild(t testing.TB, names ...string) {
	t.Helper()
	client, ctx := r.client(t)
	for _, name := range names {
		if err := client.ImageService().Delete(ctx, name, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	}
	if o := r.run(t, "build", "prune", "--all"); o.code != 0 {
		t.Error(o)
	}
}

// blobs are the digests of the namespace's content.
func (r *rig) blobs(t testing.TB) (all []string) {
	t.Helper()
	client, ctx := r.client(t)
	if err := client.ContentStore().Walk(ctx, func(i content.Info) error {
		all = append(all, i.Digest.String())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

const builtName = "carboy.test/built:latest"

// build builds a directory as builtName, and takes it away after the test.
func (r *rig) build(t *testing.T, dir string, flags ...string) outcome {
	t.Helper()
	t.Cleanup(func() { r.unbuild(t, builtName) })
	return r.run(t, append(append([]string{"build", "--progress", "plain", "-t", builtName}, flags...), dir)...)
}

func (r *rig) mustBuild(t *testing.T, dir string, flags ...string) outcome {
	t.Helper()
	o := r.build(t, dir, flags...)
	if o.code != 0 || !strings.HasPrefix(o.stdout, builtName+"@sha256:") {
		t.Fatal(o)
	}
	return o
}

// inBuilt runs a shell command in a bottle of the image.
func (r *rig) inBuilt(t *testing.T, script string) string {
	t.Helper()
	return r.mustRun(t, "run", "--yes", "--image", builtName, "--proxy", "allowlist", "--runtime", "runc", "--", "sh", "-c", script)
}

func TestBuildAndRun(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		dir := contextOf(t, map[string]string{
			"Dockerfile": "FROM " + imageName + "\nUSER root\nCOPY greeting /greeting\nRUN echo run >> /greeting && id -u >> /greeting\nUSER agent\n",
			"greeting":   "hello\n",
		})
		first := r.mustBuild(t, dir)
		if out := r.inBuilt(t, "cat /greeting"); out != "hello\nrun\n0\n" {
			t.Errorf("the image has %q", out)
		}
		before, blobs := r.host(t), r.blobs(t)
		again := r.mustBuild(t, dir)
		if again.stdout != first.stdout || !strings.Contains(again.stderr, "CACHED") {
			t.Errorf("unchanged, it is built as %v", again)
		}
		// Less than before is what the first had in use until its end.
		if diff := world.Diff(before, r.host(t)); strings.Contains(diff, "\n  + ") || !slices.Equal(blobs, r.blobs(t)) {
			t.Errorf("an unchanged build left\n%s", diff)
		}
		// The image does not need the cache.
		r.mustRun(t, "build", "prune", "--all")
		if out := r.inBuilt(t, "cat /greeting"); out != "hello\nrun\n0\n" {
			t.Errorf("without the cache, the image has %q", out)
		}
		if err := os.WriteFile(filepath.Join(dir, "greeting"), []byte("bye\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		r.mustBuild(t, dir)
		if out := r.inBuilt(t, "cat /greeting"); out != "bye\nrun\n0\n" {
			t.Errorf("the changed image has %q", out)
		}
	})
}

func (r *rig) host(t *testing.T) world.Host {
	t.Helper()
	h, err := r.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestBuildFails(t *testing.T) {
	r := newRig(t, 0)
	for name, tt := range map[string]struct {
		dockerfile string
		code       int
		says       []string
	}{
		"a command":          {"FROM " + imageName + "\nRUN echo fine\nRUN echo broken; exit 7\n", 1, []string{">>> RUN echo broken; exit 7", "exit code: 7", "Dockerfile:3"}},
		"a word":             {"FROM " + imageName + "\nRUNN true\n", 1, []string{"unknown instruction: RUNN", "Dockerfile:2"}},
		"an image":           {"FROM carboy.invalid/none\n", 1, []string{"carboy.invalid/none"}},
		"a secret variable":  {"FROM " + imageName + "\nRUN --mount=type=secret,id=s,env=TOKEN true\n", 1, []string{"/run/secrets/s", "database"}},
		"the host's network": {"FROM " + imageName + "\nRUN --network=host true\n", 1, []string{"network.host"}},
		"more rights":        {"FROM " + imageName + "\nRUN --security=insecure true\n", 1, []string{"security.insecure"}},
		"an escape as word":  {"FROM " + imageName + "\n\x1b]0;taken\a true\n", 1, []string{"unknown instruction"}},
		"an escape as stage": {"FROM " + imageName + "\nCOPY --from=\x1b]0;taken\a / /\n", 1, []string{"taken"}},
		"escapes":            {"FROM " + imageName + "\nRUN printf '\\033]0;taken\\007'; exit 3\n", 1, []string{"^[]0;taken^G", "exit code: 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := r.build(t, contextOf(t, map[string]string{"Dockerfile": tt.dockerfile}))
			if o.code != tt.code || o.stdout != "" || strings.ContainsRune(o.stderr, '\x1b') {
				t.Error(o)
			}
			for _, s := range tt.says {
				if !strings.Contains(o.stderr, s) {
					t.Errorf("it does not say %q: %v", s, o)
				}
			}
		})
	}
	if o := r.run(t, "build", t.TempDir()); o.code != 2 || !strings.Contains(o.stderr, "Dockerfile") {
		t.Errorf("a directory without a Dockerfile: %v", o)
	}
	if o := r.run(t, "build", "/nowhere"); o.code != 2 || !strings.Contains(o.stderr, "/nowhere") {
		t.Errorf("no directory: %v", o)
	}
}

// Everything of the invoker's is opened with his rights.
func TestBuildAsTheInvoker(t *testing.T) {
	r := newRig(t, 0)
	// Below a directory that everybody may enter, unlike the test's own.
	top, err := os.MkdirTemp("", "world-build-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	dockerfile := "FROM " + imageName + "\nUSER root\nCOPY . /out\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null\n"
	for path, text := range map[string]string{
		"open/Dockerfile": dockerfile, "closed/Dockerfile": dockerfile, "hole/Dockerfile": dockerfile, "hole/roots": "root's\n", "secret": "s\n", "roots-secret": "s\n", "roots-Dockerfile": dockerfile,
	} {
		path = filepath.Join(top, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{"": 0o755, "closed": 0o700, "hole/roots": 0o600, "roots-secret": 0o600, "roots-Dockerfile": 0o600} {
		if err := os.Chmod(filepath.Join(top, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/root", filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.unbuild(t, builtName) })
	at := func(name string) string { return filepath.Join(top, name) }
	secret := "id=s,src=" + at("secret")
	for _, tt := range []struct {
		what string
		may  bool
		args []string
	}{
		{"his own", true, []string{"--secret", secret, at("open")}},
		{"a closed directory", false, []string{"--secret", secret, at("closed")}},
		{"a closed file in it", false, []string{"--secret", secret, at("hole")}},
		{"a closed secret", false, []string{"--secret", "id=s,src=" + at("roots-secret"), at("open")}},
		{"a closed Dockerfile", false, []string{"--secret", secret, "-f", at("roots-Dockerfile"), at("open")}},
		{"a link to root's", false, []string{"--secret", secret, at("link")}},
	} {
		for _, who := range []string{"0", "65534"} { // root's first: a copy of his files is there then
			may := tt.may || who == "0"
			if who == "0" && tt.what == "a link to root's" {
				continue // there is no Dockerfile
			}
			c := r.command(t, append([]string{"build", "--progress", "plain", "-t", builtName}, tt.args...)...)
			c.Env = append(c.Env, "SUDO_UID="+who, "SUDO_GID="+who)
			o := finish(t, c)
			if (o.code == 0) != may || !may && !strings.Contains(o.stderr, "permission denied") {
				t.Errorf("%s, by user %s: %v", tt.what, who, o)
			}
		}
	}
}

func TestBuildNetwork(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		var steps string
		for _, target := range []string{world.Allowed + " 22", world.Neighbour + " 80", world.Metadata + " 80", world.HostAddr + " " + strconv.Itoa(world.HostTCPPort)} {
			steps += "nc -w 1 " + target + " </dev/null & "
		}
		dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nRUN " + steps + "echo www | nc -u -w 1 " + world.HostAddr + " " + strconv.Itoa(world.HostUDPPort) + " & wait\n"})
		for _, tt := range []struct {
			network string
			reaches []string
		}{
			{"none", nil},
			{"egress", []string{"internet"}},
			{"host", []string{"internet", "lan", "metadata", "host"}},
		} {
			r.Reset()
			o := r.mustBuild(t, dir, "--no-cache", "--network", tt.network)
			for _, place := range []string{"internet", "lan", "metadata", "host"} {
				if arrived := len(r.Arrivals(place)) > 0; arrived != slices.Contains(tt.reaches, place) {
					t.Errorf("--network %s: arrivals at %s: %v\n%v", tt.network, place, arrived, o)
				}
			}
		}
	})
}

// ADD of a URL goes where RUN can go.
func TestBuildFetches(t *testing.T) {
	r := newRig(t, 1)
	for _, tt := range []struct {
		network, address string
		may              bool
	}{
		{"egress", world.Allowed, true},
		{"egress", world.Metadata, false},
		{"egress", world.Neighbour, false},
		{"host", world.Neighbour, true},
		{"none", world.Allowed, false},
	} {
		dir := contextOf(t, map[string]string{"Dockerfile": "FROM scratch\nADD http://" + tt.address + "/ /file\n"})
		r.Reset()
		o := r.build(t, dir, "--no-cache", "--network", tt.network)
		if arrived := len(r.Arrivals("")) > 0; (o.code == 0) != tt.may || arrived != tt.may {
			t.Errorf("--network %s, %s: arrived %v: %v", tt.network, tt.address, arrived, o)
		}
	}
	o := r.build(t, contextOf(t, map[string]string{"Dockerfile": "FROM scratch\nADD https://" + world.Allowed + "/x.git /src\n"}))
	if o.code != 1 {
		t.Errorf("a git repository: %v", o)
	}
}

func TestBuildNextToABottle(t *testing.T) {
	r := newRig(t, 1)
	l := r.start(t)
	r.Reset()
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nRUN for i in 1 2 3 4 5 6; do nc -w 1 10.77.0.$i 8888 </dev/null && exit 9; done; nc -w 2 " + world.Allowed + " 80 </dev/null\n"})
	r.mustBuild(t, dir)
	if o := l.exec(t, "true"); o.code != 0 {
		t.Errorf("the bottle after a build: %v", o)
	}
	if !strings.Contains(hostTool(t, "nft", "list", "tables"), "carboy") {
		t.Error("the build took the bottle's table away")
	}
}

// Secrets pass to RUN by memory alone: nothing that anybody writes meanwhile
// holds one, nor does anything afterwards.
func TestBuildSecrets(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		t.Cleanup(func() { r.unbuild(t, builtName) })
		file, env, known := newNeedle(), newNeedle(), newNeedle()
		dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\n" +
			"RUN --mount=type=secret,id=f --mount=type=secret,id=e mkdir /out && wc -c < /run/secrets/f > /out/f && wc -c < /run/secrets/e > /out/e && echo rea''dy && sleep 1\n"})
		from := filepath.Join("/dev/shm", filepath.Base(t.Name())+"-secret")
		if err := os.WriteFile(from, []byte(file.value), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(from) })
		places := append(r.places(), "/var/lib/carboy")
		began := time.Now()
		watching := newWatch(t, places, file, env, known)
		c := r.command(t, "build", "--progress", "plain", "-t", builtName, "--secret", "id=f,src="+from, "--secret", "id=e,env=BUILD_TOKEN", dir)
		c.Env = append(c.Env, "BUILD_TOKEN="+env.value)
		said, wait, _ := starts(t, c, " ready\n")
		nowhere := func(when string) {
			for what, n := range map[string]*needle{"file": file, "variable": env} {
				for _, path := range n.search(t, places, began) {
					if path != from && !inMemory(t, path) {
						t.Errorf("%s: the secret of a %s is in %s", when, what, path)
					}
				}
			}
		}
		nowhere("in RUN")
		if o := wait(); o.code != 0 || strings.Contains(said.String(), file.value) {
			t.Fatal(o)
		}
		nowhere("after the build")
		plant(t, filepath.Join(os.TempDir(), "planted"), known)
		eventually(t, "the watch sees what is planted", func() bool { return watching.sees("planted") })
		for _, found := range watching.stop(t) {
			if !strings.Contains(found, "planted") {
				t.Error(found)
			}
		}
		if out, want := r.inBuilt(t, "cat /out/f /out/e; ls /run"), fmt.Sprintf("%d\n%d\n", len(file.value), len(env.value)); out != want {
			t.Errorf("RUN saw secrets of %q bytes, not %q", out, want)
		}
	})
}

// inMemory is whether a file is in a file system that no disk holds.
func inMemory(t *testing.T, path string) bool {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Type == unix.TMPFS_MAGIC
}

// RUN is held like a container of Docker's is, and has no raw packets.
func TestBuildConfines(t *testing.T) {
	r := newRig(t, 0)
	const script = "grep -E '^(CapBnd|Seccomp):' /proc/self/status > /out; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max >> /out 2>/dev/null; wc -l < /proc/net/route >> /out; ls /sys/class/net >> /out\n"
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nRUN " + script})
	r.mustBuild(t, dir, "--network", "none")
	const docker = 0xa80425fb // its capabilities
	const netRaw = 1 << 13
	if out, want := r.inBuilt(t, "cat /out"), fmt.Sprintf("CapBnd:\t%016x\nSeccomp:\t2\n4096\n1\nlo\n", docker&^netRaw); out != want {
		t.Errorf("RUN has %q, not %q", out, want)
	}
}

// After a crash of the host nothing of the cache counts: it may not have been
// on the disk.
func TestBuildAfterACrash(t *testing.T) {
	r := newRig(t, 1)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nRUN echo run > /out\n"})
	r.mustBuild(t, dir)
	if o := r.mustBuild(t, dir); !strings.Contains(o.stderr, "CACHED") {
		t.Fatalf("the cache is not used: %v", o)
	}
	roots, err := filepath.Glob("/var/lib/carboy/buildkit/" + r.namespace + "-*")
	if err != nil || len(roots) != 1 {
		t.Fatal(roots, err)
	}
	left := filepath.Join(roots[0], "running")
	if err := os.WriteFile(left, []byte("another-boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := r.mustBuild(t, dir); strings.Contains(o.stderr, "CACHED") {
		t.Errorf("after a crash the cache is used: %v", o)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what marks the crash: %v", err)
	}
	if o := r.mustBuild(t, dir); !strings.Contains(o.stderr, "CACHED") {
		t.Errorf("then the new cache is not used: %v", o)
	}
}

// begin starts a build and returns when its stderr says so.
func (r *rig) begin(t *testing.T, says, dir string, flags ...string) (*lockedBuffer, func() outcome, int) {
	t.Helper()
	return starts(t, r.command(t, append(append([]string{"build", "--progress", "plain", "-t", builtName}, flags...), dir)...), says)
}

func starts(t *testing.T, c *exec.Cmd, says string) (*lockedBuffer, func() outcome, int) {
	t.Helper()
	var stdout bytes.Buffer
	said := &lockedBuffer{}
	c.Stdout, c.Stderr = &stdout, said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if says != "" {
		eventually(t, "the build says "+says, func() bool { return strings.Contains(said.String(), says) })
	}
	return said, func() outcome {
		_ = c.Wait()
		return outcome{c.ProcessState.ExitCode(), stdout.String(), said.String()}
	}, c.Process.Pid
}

func TestBuildsTakeTurns(t *testing.T) {
	r := newRig(t, 1)
	t.Cleanup(func() { r.unbuild(t, builtName) })
	slow := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nRUN echo rea''dy; sleep 2; echo one > /slow\n"})
	quick := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nRUN echo two > /quick\n"})
	_, first, _ := r.begin(t, " ready\n", slow)
	said, second, _ := r.begin(t, "another build is under way", quick)
	if o := first(); o.code != 0 {
		t.Error(o)
	}
	if o := second(); o.code != 0 {
		t.Errorf("%v\n%s", o, said)
	}
}

func TestBuildInterrupted(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		t.Cleanup(func() { r.unbuild(t, builtName) })
		dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nRUN echo rea''dy; sleep 600\n"})
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			_, wait, pid := r.begin(t, " ready\n", dir)
			start := time.Now()
			if err := syscall.Kill(pid, s); err != nil {
				t.Fatal(err)
			}
			o := wait()
			took := time.Since(start)
			const most = 3 * time.Second // 0.2 s on a quiet machine
			if o.code != 130 || o.stdout != "" || !strings.Contains(o.stderr, "interrupted") || took > most {
				t.Errorf("%v: after %v: %v", s, took, o)
			}
			t.Logf("%v: ended after %v", s, took)
			if diff := r.withoutCache(t); diff != "" {
				t.Errorf("%v left\n%s", s, diff)
			}
		}
	})
}

// withoutCache is the host's difference to before, less snapshots and leases,
// which are the cache's.
func (r *rig) withoutCache(t *testing.T) string {
	t.Helper()
	diff := ""
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		diff = ""
		for line := range strings.Lines(world.Diff(r.before, r.host(t))) {
			if strings.HasPrefix(line, "  ") && !strings.Contains(line, " snapshot ") && !strings.Contains(line, " lease ") {
				diff += line
			}
		}
		if diff == "" {
			break
		}
	}
	return diff
}

// TestBuildKilled kills what belongs to a build: all of it, its controller, or
// carboy alone. A gc and the next build remove what it left.
func TestBuildKilled(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		t.Cleanup(func() { r.unbuild(t, builtName) })
		blobs := r.blobs(t)
		noise := make([]byte, 6<<20)
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		dir := contextOf(t, map[string]string{"noise": string(noise), "Dockerfile": "FROM " + imageName + "\nUSER root\nCOPY noise /a\nRUN echo rea''dy; cat /a > /b; sleep 0.4\nCOPY noise /c\n"})
		start := time.Now()
		r.mustBuild(t, dir)
		took := time.Since(start)
		for i := range 5 { // on each containerd
			kind := []string{"all", "controller", "carboy"}[i%3]
			says, moment := "", rand.N(took)
			if i < 3 {
				says, moment = " ready\n", 0 // in RUN for certain
			}
			_, wait, pid := r.begin(t, says, dir, "--no-cache")
			<-time.After(moment) // the moment is the subject
			killBuild(t, kind, pid)
			o := wait()
			if kind == "controller" && i < 3 && (o.code != 1 || !strings.Contains(o.stderr, "controller")) {
				t.Errorf("without its controller a build ends as %v", o)
			}
			eventually(t, "the halves end", func() bool { return len(halves(t, 0)) == 0 })
			if o := r.run(t, "gc"); o.code != 0 {
				t.Error(o)
			}
			if diff := r.withoutCache(t); diff != "" {
				t.Errorf("%s, after %v, gc leaves\n%s", kind, moment, diff)
			}
		}
		r.mustBuild(t, dir)
		if out := r.inBuilt(t, "cmp /a /b && cmp /a /c && echo same"); out != "same\n" {
			t.Errorf("after kills the image has %q", out)
		}
		r.unbuild(t, builtName)
		if now := r.blobs(t); !slices.Equal(now, blobs) {
			t.Errorf("%d blobs, not %d", len(now), len(blobs))
		}
	})
}

// killBuild stops carboy first, so that it sees nothing of what follows.
func killBuild(t *testing.T, kind string, pid int) {
	t.Helper()
	if kind == "all" {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	for half, command := range halves(t, pid) {
		if kind == "all" || kind == "controller" && command == "serve" {
			_ = syscall.Kill(half, syscall.SIGKILL)
		}
	}
	if kind != "controller" {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// halves are the processes of carboy-buildkit, by their command: those of one
// carboy, or all.
func halves(t *testing.T, parent int) map[int]string {
	t.Helper()
	found := map[int]string{}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		b, err := os.ReadFile(path)
		args := strings.Split(string(b), "\x00")
		if err != nil || len(args) < 2 || filepath.Base(args[0]) != "carboy-buildkit" {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if err == nil && (parent == 0 || strings.Contains(string(status), fmt.Sprintf("PPid:\t%d\n", parent))) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found[pid] = args[1]
		}
	}
	return found
}

func TestBuildCacheSize(t *testing.T) {
	r := newRig(t, 1)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nCOPY noise /noise\n"})
	removed := func(size string) string {
		for range 4 {
			noise := make([]byte, 5<<20)
			for i := range noise {
				noise[i] = byte(rand.Uint32())
			}
			if err := os.WriteFile(filepath.Join(dir, "noise"), noise, 0o644); err != nil {
				t.Fatal(err)
			}
			r.mustBuild(t, dir, "--build-cache-size", size)
		}
		return r.mustRun(t, "build", "prune", "--all")
	}
	size := func(text string) float64 {
		var n float64
		if _, err := fmt.Sscanf(text, "removed %fMB", &n); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return n
	}
	whole, limited := size(removed("10GB")), size(removed("16MB"))
	// What the image uses is not counted: the last build's 20 MB.
	if whole < 50 || limited > 16+24 {
		t.Errorf("of 4 builds the cache has %v MB, and %v MB with a limit of 16", whole, limited)
	}
}
