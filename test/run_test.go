package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"carboy/test/world"
)

var runtimes = []string{"runc", "runsc"}

// ends are commands with the exit code that carboy ends with.
var ends = []struct {
	code    int
	command []string
}{
	{0, []string{"true"}},
	{1, []string{"false"}},
	{42, []string{"probe", "exit", "42"}},
	{126, []string{"/etc/passwd"}},
	{126, []string{"/bin"}},
	{127, []string{"nosuchprogram"}},
	{127, []string{"/bin/nosuchprogram"}},
	{137, []string{"sh", "-c", "kill -9 $$"}},
	{143, []string{"sh", "-c", "kill -TERM $$"}},
}

func TestExitCodes(t *testing.T) {
	r := newRig(t, 0)
	for _, tc := range ends {
		if o := r.run(t, append(bottle("--"), tc.command...)...); o.code != tc.code {
			t.Errorf("%v, want %d: %v", tc.command, tc.code, o)
		}
	}
	l := r.start(t, "--runtime", "runsc")
	for _, tc := range ends {
		if o := l.exec(t, tc.command...); o.code != tc.code {
			t.Errorf("runsc, %v, want %d: %v", tc.command, tc.code, o)
		}
	}
	l.stop(t)
}

// TestOwnFailures are ends of carboy's own, at which the command did not run.
func TestOwnFailures(t *testing.T) {
	r := newRig(t, 0)
	for _, tc := range []struct {
		name  string
		code  int
		flags []string
		says  string
	}{
		{"no containerd", 125, []string{"--address", "/run/none.sock"}, "no containerd at /run/none.sock"},
		{"wrong limit", 2, []string{"--memory", "1k"}, "memory"},
		{"unknown flag", 2, []string{"--nosuchflag"}, "--nosuchflag"},
		{"variable that is not set", 2, []string{"-e", "CARBOY_TEST_UNSET"}, "CARBOY_TEST_UNSET is not set"},
		{"no such user", 126, []string{"-u", "nosuchuser"}, "nosuchuser"},
		{"no such directory", 126, []string{"-w", "/no/such"}, "/no/such"},
		{"a file as directory", 126, []string{"-w", "/etc/passwd"}, "/etc/passwd"},
		{"nobody to ask", 2, []string{"--yes=false"}, "use --yes"},
	} {
		c := r.command(t, append(bottle(tc.flags...), "--", "echo", "it ran")...)
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal, wherever the test runs
		if o := finish(t, c); o.code != tc.code || o.stdout != "" || !strings.Contains(o.stderr, tc.says) {
			t.Errorf("%s: want %d and %q: %v", tc.name, tc.code, tc.says, o)
		}
	}
}

// importImages adds images made for one test to the host as it is before.
func (r *rig) importImages(t *testing.T, images ...world.Image) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	for _, i := range images {
		if err := i.Write(file); err != nil {
			t.Fatal(err)
		}
		r.importImage(t, file)
	}
	r.asBefore(t)
}

// asBefore makes the host as it is now what the test has to leave.
func (r *rig) asBefore(t *testing.T) {
	t.Helper()
	var err error
	if r.before, err = r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// manyRoots has further names of root.
var manyRoots = []byte("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n" +
	"other:x:1234:1234::/tmp:/bin/sh\n")

// TestImage takes command and user from the image, but never root.
func TestImage(t *testing.T) {
	r := newRig(t, 0)
	passwd := map[string][]byte{"etc/passwd": manyRoots}
	r.importImages(t,
		world.Image{Name: "carboy.test/root:latest", User: "root", Entrypoint: []string{"echo", "entry"}, Cmd: []string{"a  b"}, Files: passwd},
		world.Image{Name: "carboy.test/toor:latest", User: "toor", Cmd: []string{"id", "-u"}, Files: passwd})
	whoami := []string{"--", "sh", "-c", "id -u; id -g"}
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"the image's command", nil, 0, "entry a  b\n"},
		{"image of root", whoami, 0, "1000\n1000\n"},
		{"root by name", append([]string{"-u", "root"}, whoami...), 0, "0\n0\n"},
		{"root by number", append([]string{"-u", "0"}, whoami...), 0, "0\n0\n"},
		{"another user", append([]string{"-u", "other"}, whoami...), 0, "1234\n1234\n"},
		{"user and group", append([]string{"-u", "77:88"}, whoami...), 0, "77\n88\n"},
		{"a name that the image maps to root", append([]string{"-u", "toor"}, whoami...), 126, ""},
		{"root in disguise", append([]string{"-u", "+0"}, whoami...), 126, ""},
		{"image of root by another name", []string{"--image", "carboy.test/toor:latest"}, 126, ""},
	} {
		o := r.run(t, append(bottle("--image", "carboy.test/root:latest"), tc.args...)...)
		if o.code != tc.code || o.stdout != tc.want {
			t.Errorf("%s: want %d, %q: %v", tc.name, tc.code, tc.want, o)
		}
		if tc.code == 126 && !strings.Contains(o.stderr, "is root in this image") {
			t.Errorf("%s: the message does not say why: %v", tc.name, o)
		}
	}
}

// odd is no UTF-8: file names and arguments are bytes.
const odd = "a\xff\xfe\x80b"

func TestRunFlags(t *testing.T) {
	r := newRig(t, 0)
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# comment\nFILE=from file\n\nQUOTED=\"kept\"\nOVER=file\nFORWARDED_BY_FILE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const show = `pwd; id -u; for v in PLAIN EMPTY FORWARDED FILE QUOTED OVER FORWARDED_BY_FILE HOME NOT_FORWARDED; do
		eval echo "$v=\${$v-unset}"; done; printf '%s|%s' "$1" "$ODD"`
	flags := []string{"-w", "/tmp", "-u", "1000", "-e", "PLAIN=a=b", "-e", "EMPTY=", "-e", "FORWARDED", "--env-file", file, "-e", "OVER=flag", "-e", "ODD=" + odd}
	c := r.command(t, append(bottle(flags...), "--", "sh", "-c", show, "sh", odd)...)
	c.Env = append(c.Env, "FORWARDED=by name", "FORWARDED_BY_FILE=too", "NOT_FORWARDED=secret")
	o := finish(t, c)
	want := "/tmp\n1000\nPLAIN=a=b\nEMPTY=\nFORWARDED=by name\nFILE=from file\nQUOTED=\"kept\"\nOVER=flag\nFORWARDED_BY_FILE=too\n" +
		"HOME=/home/agent\nNOT_FORWARDED=unset\n" + odd + "|" + odd
	if o.code != 0 || o.stdout != want {
		t.Errorf("exit %d, got\n%q, want\n%q\n%s", o.code, o.stdout, want, o.stderr)
	}
	for _, value := range []string{"a=b", "by name", "from file", "flag"} {
		if strings.Contains(o.stderr, value) {
			t.Errorf("the preflight shows the value %q:\n%s", value, o.stderr)
		}
	}
}

// TestUmask: a caller's strict umask does not reach what containers must read.
func TestUmask(t *testing.T) {
	r := newRig(t, 0)
	c := r.command(t, bottle("--allow", "allowed.test", "--", "sh", "-c", "cat /etc/hosts /etc/resolv.conf && probe http http://allowed.test/")...)
	throughShell(c, `umask 077 && exec "$@"`)
	o := finish(t, c)
	if o.code != 0 || !strings.Contains(o.stdout, "10.66.0.1 pipelock") || !strings.Contains(o.stdout, `"ok":true`) {
		t.Errorf("%v", o)
	}
}

// TestLimits looks at the numbers where the kernel keeps them, and at what
// happens to an agent that wants more.
func TestLimits(t *testing.T) {
	r := newRig(t, 0)
	for _, runtime := range runtimes {
		t.Run(runtime, func(t *testing.T) {
			l := r.start(t, "--runtime", runtime, "--memory", "256MiB", "--cpus", "0.5", "--pids-limit", "300")
			checkCgroup(t, l)
			checkBusy(t, l)
			if runtime == "runsc" {
				checkSandboxMemory(t, l)
				return
			}
			checkForks(t, l)
			checkMemory(t, l)
			if o := l.exec(t, "true"); o.code != 0 {
				t.Errorf("the bottle does not live on: %v", o)
			}
			l.stop(t)
		})
	}
}

// TestDisk: who writes more than it may is ended.
func TestDisk(t *testing.T) {
	r := newRig(t, 1)
	for _, runtime := range runtimes {
		for size, code := range map[string]int{"8": 0, "80": 143} {
			o := r.run(t, bottle("--runtime", runtime, "--disk", "32MiB", "-u", "root", "--", "sh", "-c",
				"dd if=/dev/zero of=/big bs=1M count="+size+" 2>/dev/null; exec sleep 7")...)
			said := strings.Contains(o.stderr, "and may write 32MiB (--disk): it is ended")
			if o.code != code || said != (code != 0) {
				t.Errorf("%s, %s MiB: %v", runtime, size, o)
			}
		}
	}
}

// TestDiskHidden: it does not help to hide what was written.
func TestDiskHidden(t *testing.T) {
	r := newRig(t, 0)
	for what, script := range map[string]string{
		"without a name": "exec 3>/f; rm /f; head -c 80m /dev/zero >&3; exec sleep 60",
		"long paths":     `cd /home; d=$(head -c 200 /dev/zero | tr '\0' d); i=0; while [ $i -lt 30 ]; do mkdir $d; cd $d; i=$((i+1)); done; head -c 80m /dev/zero >f; exec sleep 60`,
	} {
		o := r.run(t, bottle("--disk", "32MiB", "-u", "root", "--", "sh", "-c", script)...)
		if o.code != 143 || !strings.Contains(o.stderr, "and may write 32MiB (--disk): it is ended") {
			t.Errorf("%s: %v", what, o)
		}
	}
}

// cgroupFile reads a file of the group that a process is in, by its version 1
// name, else by its version 2 name.
func cgroupFile(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		file := filepath.Join("/sys/fs/cgroup", controller, fields[2], v1)
		if fields[1] == "" {
			file = filepath.Join("/sys/fs/cgroup", fields[2], v2)
		} else if !slices.Contains(strings.Split(fields[1], ","), controller) {
			continue
		}
		if b, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	t.Fatalf("process %d is in no group of %s:\n%s", pid, controller, groups)
	return ""
}

func checkCgroup(t *testing.T, l *live) {
	t.Helper()
	pid := l.inspect(t).PIDs[0]
	for _, tc := range []struct{ controller, v1, v2, want string }{
		{"memory", "memory.limit_in_bytes", "memory.max", "268435456"},
		{"pids", "pids.max", "pids.max", "300"},
		{"cpu", "cpu.cfs_quota_us", "cpu.max", "50000"},
	} {
		got, _, _ := strings.Cut(cgroupFile(t, pid, tc.controller, tc.v1, tc.v2), " ")
		if got != tc.want {
			t.Errorf("%s is %s, want %s", tc.v1, got, tc.want)
		}
	}
}

var throttled = regexp.MustCompile(`nr_throttled (\d+)`)

func checkBusy(t *testing.T, l *live) {
	t.Helper()
	pid := l.inspect(t).PIDs[0]
	count := func() string {
		return throttled.FindStringSubmatch(cgroupFile(t, pid, "cpu", "cpu.stat", "cpu.stat"))[1]
	}
	before := count()
	l.exec(t, "timeout", "1", "sh", "-c", "while :; do :; done")
	if after := count(); after == before {
		t.Errorf("a busy loop was never throttled: %s times", after)
	}
}

func checkForks(t *testing.T, l *live) {
	t.Helper()
	o := l.exec(t, "sh", "-c", "i=0; while [ $i -lt 400 ]; do sleep 2 & i=$((i+1)); done; wait")
	if o.code == 0 || !strings.Contains(o.stderr, "can't fork") {
		t.Errorf("400 processes under a limit of 300: %v", o)
	}
	eventually(t, "the bottle recovers from a fork bomb", func() bool { return l.exec(t, "true").code == 0 })
}

// take has a command use memory.
func (l *live) take(t *testing.T, size string) outcome {
	t.Helper()
	return l.exec(t, "dd", "if=/dev/zero", "of=/dev/null", "count=1", "bs="+size)
}

func checkMemory(t *testing.T, l *live) {
	t.Helper()
	if o := l.take(t, "100M"); o.code != 0 {
		t.Errorf("control: 100 MiB under a limit of 256: %v", o)
	}
	if o := l.take(t, "400M"); o.code != 137 {
		t.Errorf("400 MiB under a limit of 256: %v", o)
	}
}

// checkSandboxMemory: with runsc the one who takes too much takes the whole
// sandbox down.
func checkSandboxMemory(t *testing.T, l *live) {
	t.Helper()
	if o := l.take(t, "100M"); o.code != 0 {
		t.Errorf("control: 100 MiB under a limit of 256: %v", o)
	}
	if o := l.take(t, "400M"); o.code != 125 {
		t.Errorf("400 MiB under a limit of 256: %v", o)
	}
	l.ended(t)
	if code := l.cmd.ProcessState.ExitCode(); code != 125 {
		t.Errorf("exit %d of a sandbox that ran out of memory:\n%s", code, l.stderr)
	}
}

const (
	noCapabilities = "0000000000000000"
	// Of containerd's default set all but MKNOD, NET_RAW and SYS_CHROOT.
	rootCapabilities = "00000000a00005fb"
)

// TestPrivileges looks at what an agent has, and what it can do to PID 1.
func TestPrivileges(t *testing.T) {
	r := newRig(t, 0)
	for _, runtime := range runtimes {
		t.Run(runtime, func(t *testing.T) {
			l := r.start(t, "--runtime", runtime)
			checkCaps(t, l, runtime, "1000", noCapabilities)
			checkCaps(t, l, runtime, "0", noCapabilities, "-u", "root")
			checkInit(t, l, runtime, false)
			checkInit(t, l, runtime, true, "-u", "root")
			l.stop(t)
			l = r.start(t, "--runtime", runtime, "-u", "root")
			checkCaps(t, l, runtime, "0", rootCapabilities)
			checkCaps(t, l, runtime, "1000", noCapabilities, "-u", "agent")
			checkInit(t, l, runtime, true)
			l.stop(t)
		})
	}
}

// execWith is exec with flags.
func (l *live) execWith(t *testing.T, flags []string, args ...string) outcome {
	t.Helper()
	return l.rig.run(t, slices.Concat([]string{"exec"}, flags, []string{l.name, "--"}, args)...)
}

func checkCaps(t *testing.T, l *live, runtime, uid, caps string, flags ...string) {
	t.Helper()
	o := l.execWith(t, flags, "probe", "caps")
	got := attempts(t, o.stdout)
	if o.code != 0 || len(got) != 1 {
		t.Fatalf("%v", o)
	}
	value, _ := got[0].Value.(map[string]any)
	bounding := caps
	if caps == noCapabilities && uid != "0" && len(flags) > 0 {
		bounding = rootCapabilities // the bottle's root may have them
	}
	for name, want := range map[string]string{"Uid": uid, "CapEff": caps, "CapPrm": caps, "CapBnd": bounding} {
		if value[name] != want {
			t.Errorf("%s is %v, want %s: %v", name, value[name], want, o)
		}
	}
	if value["NoNewPrivs"] != "1" {
		t.Errorf("no_new_privs is off: %v", o)
	}
	// runsc has a kernel of its own before the host's, and no use for the filter.
	if runtime == "runc" && value["Seccomp"] != "2" {
		t.Errorf("seccomp is off: %v", o)
	}
}

// checkInit: PID 1 holds the connection to the supervisor. Its command line and
// the number of its descriptors are no secret.
func checkInit(t *testing.T, l *live, runtime string, root bool, flags ...string) {
	t.Helper()
	o := l.execWith(t, flags, "probe", "ptrace1")
	tried := attempts(t, o.stdout)
	for _, a := range tried {
		switch {
		case !a.OK, a.What == "list", a.Target == "/proc/1/cmdline":
		default:
			t.Errorf("%s %v: the agent reached PID 1: %v", runtime, flags, a)
		}
	}
	if o.code != 0 || len(tried) < 40 {
		t.Errorf("%s %v: the probe did not get to its end: %v", runtime, flags, o)
	}
	// After it: what the end of PID 1 cuts off is output too.
	o = l.execWith(t, flags, "probe", "kill1")
	if root && runtime == "runsc" {
		checkKilled(t, l)
		return
	}
	if sent := attempts(t, o.stdout); o.code != 0 || len(sent) != 64 {
		t.Errorf("%s %v: not every signal was tried: %v", runtime, flags, o)
	}
	if o := l.exec(t, "echo", "alive"); o.code != 0 || o.stdout != "alive\n" {
		t.Errorf("%s %v: the bottle does not live on: %v\n%s", runtime, flags, o, l.stderr)
	}
}

// checkKilled: runsc lets root in the container kill PID 1, unlike Linux. That
// has to be the bottle's end.
func checkKilled(t *testing.T, l *live) {
	t.Helper()
	l.ended(t)
	if code := l.cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(l.stderr.String(), "carboy-init went away") {
		t.Errorf("exit %d of a bottle whose PID 1 was killed:\n%s", code, l.stderr)
	}
}

// throughShell runs a command line of carboy inside a shell's, as its "$@".
func throughShell(c *exec.Cmd, script string) {
	c.Args = slices.Concat([]string{"sh", "-c", script, "sh", c.Path}, c.Args[1:])
	c.Path = "/bin/sh"
}
