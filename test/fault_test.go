package test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"carboy/test/world"
)

// firstAct shows twice that an agent has run: by output, and by an arrival.
var firstAct = []string{"--", "sh", "-c", "echo it ran; probe http http://allowed.test/"}

// actor is a run of that agent.
func actor(flags ...string) []string {
	return slices.Concat(bottle("--name", "actor", "--allow", "allowed.test"), flags, firstAct)
}

// checkRan is the control of checkNeverRan.
func (r *rig) checkRan(t *testing.T, o outcome) {
	t.Helper()
	if o.code != 0 || !strings.HasPrefix(o.stdout, "it ran\n") || len(r.Arrivals("internet/http")) != 1 {
		t.Errorf("control: the agent did not run: %v", o)
	}
	r.Reset()
}

// checkNeverRan also wants the host to be as before, without any gc.
func (r *rig) checkNeverRan(t *testing.T, o outcome, code int, says ...string) {
	t.Helper()
	if o.code != code || o.stdout != "" {
		t.Errorf("want %d and no output: %v", code, o)
	}
	for _, text := range says {
		if !strings.Contains(o.stderr, text) {
			t.Errorf("the message lacks %q: %v", text, o)
		}
	}
	for _, a := range r.Arrivals("internet/http") {
		t.Errorf("the agent ran: arrived: %+v", a)
	}
	r.checkClean(t)
}

// fault is a run whose bring-up must fail.
type fault struct {
	name  string
	code  int
	flags []string
	says  []string
}

// TestNeverRuns: without a proven seal there is no agent.
func TestNeverRuns(t *testing.T) {
	r := newRig(t, 1)
	r.importImages(t, proxyImages...)
	r.checkRan(t, r.run(t, actor()...))
	for _, f := range slices.Concat(proxyFaults(), pluginFaults(t), hostFaults(t)) {
		t.Run(f.name, func(t *testing.T) {
			r.checkNeverRan(t, r.run(t, actor(f.flags...)...), f.code, f.says...)
		})
	}
	r.checkRan(t, r.run(t, actor()...))
}

// proxyImages hold what takes the place of the engine.
var proxyImages = []world.Image{
	{Name: "carboy.test/exits:latest", Files: map[string][]byte{"pipelock": []byte("#!/bin/sh\necho last words\nexit 3\n")}},
	{Name: "carboy.test/sleeps:latest", Files: map[string][]byte{"pipelock": []byte("#!/bin/sh\nexec sleep 1000\n")}},
}

func proxyFaults() []fault {
	from := func(flag, what string) []string { return []string{"--proxy", "pipelock", flag, what} }
	return []fault{
		{"proxy image that exits", 125, from("--proxy-image", "carboy.test/exits:latest"),
			[]string{"proxy pipelock is not healthy", "status 3", "last words"}},
		{"proxy image that is never healthy", 125, from("--proxy-image", "carboy.test/sleeps:latest"),
			[]string{"proxy pipelock is not healthy", "no answer within 15s"}},
		{"proxy image without a proxy", 125, from("--proxy-image", imageName), []string{`"/pipelock"`, "no such file"}},
		{"proxy image whose registry is not there", 125, from("--proxy-image", "127.0.0.1:9/pipelock:1"),
			[]string{"127.0.0.1:9/pipelock:1", "carboy image import", "--proxy-binary", "--proxy allowlist"}},
		{"proxy image that is not there", 125, from("--proxy-image", "carboy.test/none:latest"), []string{"carboy.test/none:latest", "not found"}},
		{"proxy binary that is no proxy", 125, from("--proxy-binary", shared.carboy),
			[]string{"proxy pipelock is not healthy", "status 2", "unknown flag: --config"}},
		{"proxy binary that is no program", 125, from("--proxy-binary", "/etc/passwd"), []string{`"/pipelock"`}},
		{"proxy binary that is not there", 2, from("--proxy-binary", "/no/such"), []string{"/no/such"}},
	}
}

// refuse is how a plugin says no.
const refuse = `echo '{"cniVersion":"1.0.0","code":11,"msg":"no room today"}'; exit 1`

// pluginDir holds the pinned plugins, with a script in ptp's place. REAL in it
// is ptp, HERE the directory.
func pluginDir(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(shared.plugins, "host-local"), filepath.Join(dir, "host-local")); err != nil {
		t.Fatal(err)
	}
	script = strings.NewReplacer("REAL", filepath.Join(shared.plugins, "ptp"), "HERE", dir).Replace(script)
	if err := os.WriteFile(filepath.Join(dir, "ptp"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func pluginFaults(t *testing.T) []fault {
	from := func(script string) []string { return []string{"--cni-bin-dir", pluginDir(t, script)} }
	lacking := t.TempDir()
	if err := os.Symlink(filepath.Join(shared.plugins, "ptp"), filepath.Join(lacking, "ptp")); err != nil {
		t.Fatal(err)
	}
	return []fault{
		{"plugin missing", 125, []string{"--cni-bin-dir", lacking},
			[]string{lacking + " has no host-local", "containernetworking-plugins", "--cni-bin-dir"}},
		{"plugin that refuses", 125, from(`[ "$CNI_COMMAND" = ADD ] || exec REAL; ` + refuse), []string{"no room today"}},
		{"plugin that refuses when its work is done", 125, from(`[ "$CNI_COMMAND" = ADD ] || exec REAL; REAL >/dev/null; ` + refuse),
			[]string{"no room today"}},
		{"plugin that refuses the inner link", 125, from(`config=$(cat); case "$CNI_COMMAND $config" in ADD*carboy-internal*) ` + refuse +
			`;; esac; echo "$config" | REAL`), []string{"carboy-internal", "no room today"}},
		{"plugin that refuses the outer link", 125, from(`config=$(cat); case "$CNI_COMMAND $config" in ADD*carboy-egress*) ` + refuse +
			`;; esac; echo "$config" | REAL`), []string{"carboy-egress", "no room today"}},
		{"plugin that talks nonsense", 125, from(`[ "$CNI_COMMAND" = ADD ] || exec REAL; echo nonsense`), []string{"carboy-"}},
	}
}

func hostFaults(t *testing.T) []fault {
	onDisk, theirs := filepath.Join(filepath.Dir(shared.archive), t.Name()), t.TempDir()
	if err := errors.Join(os.Mkdir(onDisk, 0o700), os.Chown(theirs, 1000, 1000)); err != nil {
		t.Fatal(err)
	}
	return []fault{
		{"image not found", 125, []string{"--image", "carboy.test/none:latest"}, []string{"carboy.test/none:latest", "not found"}},
		{"image in another namespace", 125, []string{"--namespace", "elsewhere"}, []string{imageName, "--namespace", "carboy image import"}},
		{"no containerd", 125, []string{"--address", "/run/none.sock"}, []string{"no containerd at /run/none.sock", "--address"}},
		{"range that the host uses", 125, []string{"--egress-range", "203.0.113.0/24"}, []string{"overlaps 203.0.113.", "--egress-range"}},
		{"state directory of a user", 125, []string{"--state-dir", theirs + "/state"}, []string{theirs + " belongs to user 1000", "only root can change"}},
		{"log directory of a user", 125, []string{"--log-dir", theirs}, []string{theirs + " belongs to user 1000"}},
		{"state directory on a disk", 125, []string{"--state-dir", onDisk}, []string{onDisk + " is not on a tmpfs", "/run"}},
	}
}

const bareImage = "carboy.test/bare:latest"

// importBare imports an image that names no command.
func (r *rig) importBare(t *testing.T) {
	t.Helper()
	img, err := tarball.ImageFromPath(shared.archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.Config(img, v1.Config{Env: []string{"PATH=/bin"}}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bare.tar")
	if err := tarball.WriteToFile(file, name.MustParseReference(bareImage), img); err != nil {
		t.Fatal(err)
	}
	r.importImage(t, file)
	if r.before, err = r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNoCommand: neither the image nor the user names one that is there.
func TestNoCommand(t *testing.T) {
	r := newRig(t, 0)
	r.importBare(t)
	r.checkRan(t, r.run(t, actor("--image", bareImage)...))
	r.checkNeverRan(t, r.run(t, bottle("--image", bareImage)...), 125, bareImage+" names no command", "after --")
	for _, runtime := range runtimes {
		r.checkNeverRan(t, r.run(t, bottle("--runtime", runtime, "--", "nosuchprogram")...), 127, "nosuchprogram", "not found")
	}
}

// TestNameTaken leaves the bottle that has the name alone.
func TestNameTaken(t *testing.T) {
	r := newRig(t, 0)
	l := r.start(t, "--name", "actor")
	o := r.run(t, actor()...)
	if o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "a bottle named actor is there already") || !strings.Contains(o.stderr, "carboy rm -f actor") {
		t.Errorf("%v", o)
	}
	if o := l.exec(t, "echo", "alive"); o.stdout != "alive\n" {
		t.Errorf("the other bottle: %v", o)
	}
	l.stop(t)
	r.checkNeverRan(t, o, 125)
}

// TestDirectoriesOfOthers: root neither writes nor removes where a user may put
// links.
func TestDirectoriesOfOthers(t *testing.T) {
	r := newRig(t, 0)
	theirs := t.TempDir()
	if err := os.Chown(theirs, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"gc", "ls", "rm x", "inspect x", "exec x -- true"} {
		for _, option := range []string{"--state-dir", "--log-dir"} {
			o := r.run(t, slices.Concat([]string{option, theirs}, strings.Fields(command))...)
			if o.code == 0 || !strings.Contains(o.stderr, option+" "+theirs+": "+theirs+" belongs to user 1000") {
				t.Errorf("%s: %v", command, o)
			}
		}
	}
}

// TestUnusableRunsc: who asks for runsc gets runsc or nothing; auto says why it
// is runc.
func TestUnusableRunsc(t *testing.T) {
	r := newRig(t, 1)
	const without = "/usr/sbin:/usr/bin:/sbin:/bin"
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "runsc"), []byte("#!/bin/sh\necho no luck >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	const state = "/run/carboy-unusable" // what is learned about a runsc stays there
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	for _, tc := range []struct{ name, path, says string }{
		{"absent", without, "not found in $PATH"},
		{"broken", broken + ":" + without, "no luck"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := func(runtime string) outcome {
				c := r.command(t, actor("--state-dir", state, "--runtime", runtime)...)
				c.Env = append(c.Env, "PATH="+tc.path)
				return finish(t, c)
			}
			r.checkNeverRan(t, run("runsc"), 125, "runsc cannot be used on this host", tc.says)
			o := run("auto")
			if r.checkRan(t, o); !strings.Contains(o.stderr, "runc (runsc ") {
				t.Errorf("auto does not tell of runsc: %v", o)
			}
		})
	}
}

// TestRangeExhausted: the sixth of five addresses.
func TestRangeExhausted(t *testing.T) {
	r := newRig(t, 1)
	narrow := []string{"--egress-range", "10.78.0.0/29"}
	var all []*live
	for range 5 {
		all = append(all, r.start(t, narrow...))
	}
	o := r.run(t, actor(narrow...)...)
	for _, l := range all {
		l.stop(t)
	}
	r.checkNeverRan(t, o, 125, "carboy-egress", "no IP addresses available")
	r.checkRan(t, r.run(t, actor(narrow...)...))
}

// TestPluginHangs: a signal ends the wait, and a crash leaves nothing that gc
// does not end.
func TestPluginHangs(t *testing.T) {
	r := newRig(t, 1)
	for _, tc := range []struct {
		name  string
		how   string
		ended syscall.Signal
		code  int
	}{
		{"carboy terminated", "sleep 1000", syscall.SIGTERM, 125},
		{"carboy killed", "exec sleep 1000", syscall.SIGKILL, -1},
		{"carboy killed, child of the plugin", "sleep 1000", syscall.SIGKILL, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := pluginDir(t, `[ "$CNI_COMMAND" = ADD ] || exec REAL; touch HERE/hangs; `+tc.how)
			p := newPiped(t, r.command(t, actor("--cni-bin-dir", dir)...))
			eventually(t, "the plugin hangs", func() bool {
				_, err := os.Stat(filepath.Join(dir, "hangs"))
				return err == nil
			})
			asked := time.Now()
			if err := p.cmd.Process.Signal(tc.ended); err != nil {
				t.Fatal(err)
			}
			p.wait(t)
			if took := p.end.Sub(asked); took > 5*time.Second {
				t.Errorf("carboy ended after %v", took)
			}
			said, _ := io.ReadAll(p.out)
			if tc.ended == syscall.SIGKILL {
				r.sweep(t, tc.name)
			}
			r.checkNeverRan(t, outcome{p.cmd.ProcessState.ExitCode(), string(said), p.stderr.String()}, tc.code)
		})
	}
}

// TestTearDownFails: the exit code stays the agent's, what is left is told and
// stays known, and gc finishes.
func TestTearDownFails(t *testing.T) {
	r := newRig(t, 1)
	other := r.start(t) // the last bottle would take all addresses away at once
	dir := pluginDir(t, `[ "$CNI_COMMAND" = DEL ] && [ -e HERE/broken ] && { echo DEL >>HERE/calls; `+refuse+`; }; exec REAL`)
	if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := r.run(t, bottle("--name", "actor", "--cni-bin-dir", dir, "--", "sh", "-c", "echo it ran; exit 9")...)
	if o.code != 9 || o.stdout != "it ran\n" || !strings.Contains(o.stderr, "no room today") || !strings.Contains(o.stderr, "carboy gc") {
		t.Errorf("%v", o)
	}
	if o := r.run(t, "gc"); o.code != 1 || !strings.Contains(o.stderr, "no room today") {
		t.Errorf("gc with the same fault: %v", o)
	}
	if o := r.run(t, "ls"); !strings.Contains(o.stdout, "leaking") || !strings.Contains(o.stdout, "no room today") {
		t.Errorf("ls: %v", o)
	}
	calls := filepath.Join(dir, "calls")
	before, _ := os.ReadFile(calls)
	if o := r.run(t, bottle("--", "true")...); o.code != 0 {
		t.Errorf("another run: %v", o)
	}
	if after, _ := os.ReadFile(calls); len(before) == 0 || string(after) != string(before) {
		t.Errorf("a start tries at once what has just failed: calls %q, before %q", after, before)
	}
	if err := os.Remove(filepath.Join(dir, "broken")); err != nil {
		t.Fatal(err)
	}
	if out := r.mustRun(t, "gc"); out != "removed bottle actor\n" {
		t.Errorf("gc says %q", out)
	}
	other.stop(t)
}

// TestPluginsGone: what plugins made stays known until they are back.
func TestPluginsGone(t *testing.T) {
	r := newRig(t, 0)
	other := r.start(t)
	dir := pluginDir(t, "exec REAL")
	l := r.start(t, "--name", "actor", "--cni-bin-dir", dir)
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	l.stop(t)
	if said := l.stderr.String(); !strings.Contains(said, "carboy gc") || !strings.Contains(said, "ptp") {
		t.Errorf("carboy said: %s", said)
	}
	if o := r.run(t, "ls"); !strings.Contains(o.stdout, "actor is leaking") {
		t.Errorf("ls: %v", o)
	}
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	r.mustRun(t, "gc")
	if list := r.ls(t); len(list) != 1 || list[0].Name != other.name {
		t.Errorf("left: %+v", list)
	}
	other.stop(t)
}

// TestKept: a failed bring-up stays for inspection when that was asked for.
func TestKept(t *testing.T) {
	r := newRig(t, 0)
	r.importImages(t, proxyImages[0])
	o := r.run(t, actor("--keep", "--proxy", "pipelock", "--proxy-image", proxyImages[0].Name)...)
	if o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "carboy rm actor") {
		t.Errorf("%v", o)
	}
	l := &live{rig: r, name: "actor"}
	i := l.inspect(t)
	if i.State != "kept" || i.PIDs[0] == 0 || i.PIDs[1] == 0 {
		t.Errorf("%+v", i)
	}
	if out := r.mustRun(t, "gc"); out != "" {
		t.Errorf("gc: %s", out)
	}
	if o := r.run(t, "exec", "actor", "--", "echo", "it ran"); o.code != 125 || o.stdout != "" {
		t.Errorf("a command in a kept bottle: %v", o)
	}
	if now := l.inspect(t); !slices.Equal(now.PIDs, i.PIDs) {
		t.Errorf("gc touched it: %+v", now)
	}
	r.mustRun(t, "rm", "actor")
	r.checkNeverRan(t, o, 125)
}
