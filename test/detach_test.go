package test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// detach starts a bottle in the background; the test ends it if it has not.
func (r *rig) detach(t *testing.T, flags ...string) string {
	t.Helper()
	name := strings.TrimSpace(r.mustRun(t, append(bottle("-d"), flags...)...))
	t.Cleanup(func() {
		if o := r.run(t, "rm", "-f", name); o.code != 0 && !strings.Contains(o.stderr, "no bottle named") {
			t.Errorf("rm: %v", o)
		}
	})
	return name
}

const greeter = `echo hello; echo oops >&2; while read line; do echo "got $line"; [ "$line" = end ] && exit 7; done`

// TestDetached: a bottle in the background is looked at, talked to and ended.
func TestDetached(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, runtime := range runtimes {
			t.Run(runtime, func(t *testing.T) {
				name := r.detach(t, "--runtime", runtime, "-i", "--", "sh", "-c", greeter)
				checkSupervisor(t, r.ls(t)[0].PID)
				one, two := r.look(t, name), r.look(t, name)
				for _, l := range []*viewer{one, two} {
					l.shows(t, "hello\n")
				}
				one.types(t, "first\n")
				for _, l := range []*viewer{one, two} {
					l.shows(t, "got first\n")
				}
				two.types(t, "second\n")
				for _, l := range []*viewer{one, two} {
					l.shows(t, "got second\n")
				}
				one.leaves(t)
				two.types(t, "end\n")
				if code := two.ends(t); code != 7 {
					t.Errorf("attach ended with %d", code)
				}
				checkAfterwards(t, r, name)
			})
		}
	})
}

// checkSupervisor: it holds nothing of its caller's, and little memory.
func checkSupervisor(t *testing.T, pid int) {
	t.Helper()
	for fd := range 3 {
		if at, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); at != "/dev/null" {
			t.Errorf("descriptor %d of the supervisor is %s, %v", fd, at, err)
		}
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if own := regexp.MustCompile(`(?m):/.*carboy-[a-z2-7]{10}-s$`); err != nil || !own.Match(groups) {
		t.Errorf("it has no control group of its own: %s, %v", groups, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	if session := strings.Fields(string(stat))[5]; session != strconv.Itoa(pid) {
		t.Errorf("the supervisor %d is in session %s", pid, session)
	}
	eventually(t, "the supervisor is small", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		resident := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindStringSubmatch(string(status))
		kB, _ := strconv.Atoi(resident[1])
		return kB <= 25<<10
	})
}

// checkAfterwards: an ended bottle is known by its log and its exit code.
func checkAfterwards(t *testing.T, r *rig, name string) {
	t.Helper()
	if out := r.mustRun(t, "wait", name); out != "7\n" {
		t.Errorf("wait says %q", out)
	}
	eventually(t, "the bottle is gone", func() bool { return len(r.ls(t)) == 0 })
	o := r.run(t, "logs", name)
	if o.code != 0 || o.stdout != "hello\ngot first\ngot second\ngot end\n" || o.stderr != "oops\n" {
		t.Errorf("logs: %v", o)
	}
	if o := r.run(t, "logs", "--tail", "1", "--timestamps", name); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\S+Z got end\n$`).MatchString(o.stdout) {
		t.Errorf("the last line: %v", o)
	}
	var line struct{ Stream, Text string }
	if err := json.Unmarshal([]byte(r.mustRun(t, "logs", "-n", "1", "--json", name)), &line); err != nil || line.Stream != "stdout" || line.Text != "got end" {
		t.Errorf("the last line in JSON: %+v, %v", line, err)
	}
	if o := r.run(t, "attach", name); o.code != 125 || !strings.Contains(o.stderr, "no bottle named") {
		t.Errorf("attach to an ended bottle: %v", o)
	}
}

// viewer is an attached command line on pipes.
type viewer struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	screen lockedBuffer
}

func (r *rig) look(t *testing.T, name string, flags ...string) *viewer {
	t.Helper()
	v := &viewer{cmd: r.command(t, append(append([]string{"attach"}, flags...), name)...)}
	v.cmd.Stdout, v.cmd.Stderr = &v.screen, &v.screen
	var err error
	if v.stdin, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *viewer) shows(t *testing.T, text string) {
	t.Helper()
	eventually(t, "shown: "+text, func() bool { return strings.Contains(v.screen.String(), text) })
}

func (v *viewer) types(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(v.stdin, text); err != nil {
		t.Fatal(err)
	}
}

func (v *viewer) ends(t *testing.T) int {
	t.Helper()
	_ = v.cmd.Wait()
	return v.cmd.ProcessState.ExitCode()
}

// leaves detaches by a signal.
func (v *viewer) leaves(t *testing.T) {
	t.Helper()
	if err := v.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := v.ends(t); code != 0 || !strings.Contains(v.screen.String(), "goes on") {
		t.Errorf("detached with %d: %s", code, v.screen.String())
	}
}

// TestDetachFails: what goes wrong is told where the bottle was asked for.
func TestDetachFails(t *testing.T) {
	r := newRig(t, 1)
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no such image":   {[]string{"run", "-d", "-y", "--proxy", "allowlist", "--image", "carboy.test/none:1"}, 125, "carboy.test/none:1"},
		"no such command": {bottle("-d", "--", "nosuch"), 127, `"nosuch": executable file not found`},
		"not confirmed":   {[]string{"run", "-d", "--proxy", "allowlist", "--image", imageName}, 2, "--yes"},
		"bad restart":     {bottle("-d", "--restart", "always"), 2, "--restart"},
	} {
		t.Run(name, func(t *testing.T) {
			if o := r.run(t, tc.args...); o.code != tc.code || o.stdout != "" || !strings.Contains(o.stderr, tc.says) {
				t.Errorf("want %d: %v", tc.code, o)
			}
			r.checkClean(t)
		})
	}
}

// TestEnds: each way to end bottles in the background.
func TestEnds(t *testing.T) {
	r := newRig(t, 0)
	const stubborn, gentle = `trap "" TERM; echo up; while :; do sleep 0.1; done`, `trap "exit 9" TERM; echo up; while :; do sleep 0.1; done`
	for name, tc := range map[string]struct {
		script  string
		command []string
		code    string
	}{
		"stop":             {gentle, []string{"stop", "back"}, "9"},
		"stop at once":     {stubborn, []string{"stop", "-t", "0", "back"}, "137"},
		"stop all":         {gentle, []string{"stop", "--all"}, "9"},
		"kill":             {stubborn, []string{"kill", "back"}, "137"},
		"kill by a name":   {gentle, []string{"kill", "-s", "sigterm", "back"}, "9"},
		"kill by number":   {gentle, []string{"kill", "-s", "15", "--all"}, "9"},
		"removal by rm -f": {gentle, []string{"rm", "-f", "back"}, "9"},
	} {
		t.Run(name, func(t *testing.T) {
			r.detach(t, "--name", "back", "--restart", "on-failure", "--", "sh", "-c", "exec sleep 1000")
			r.mustRun(t, "stop", "-t", "0", "back")
			r.detach(t, "--name", "back", "--", "sh", "-c", tc.script)
			eventually(t, "the command is up", func() bool { return strings.Contains(r.mustRun(t, "logs", "back"), "up") })
			if out := r.mustRun(t, tc.command...); out != "back\n" {
				t.Errorf("%v says %q", tc.command, out)
			}
			if out := r.mustRun(t, "wait", "back"); out != tc.code+"\n" {
				t.Errorf("the command ended with %s, want %s", out, tc.code)
			}
			eventually(t, "the bottle is gone", func() bool { return len(r.ls(t)) == 0 })
		})
	}
}

// TestBurst: nobody who looks delays the agent, and the log has everything.
func TestBurst(t *testing.T) {
	r := newRig(t, 1)
	const script = `read go; dd if=/dev/urandom bs=1M count=16 2>/dev/null >/dev/shm/x; for i in 1 2 3 4 5 6 7; do cat /dev/shm/x; done; sha256sum /dev/shm/x >&2`
	name := r.detach(t, "-i", "--", "sh", "-c", script)
	sleeper := r.look(t, name)
	if err := sleeper.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.cmd.Process.Kill() }()
	typist := r.look(t, name)
	typist.types(t, "go\n")
	if out := r.mustRun(t, "wait", name); out != "0\n" {
		t.Fatalf("the burst ended with %s", out)
	}
	c := r.command(t, "logs", name)
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr lockedBuffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		sum := sha256.New()
		if n, err := io.CopyN(sum, stdout, 16<<20); err != nil {
			t.Fatalf("piece %d has %d bytes: %v", i, n, err)
		}
		defer func() {
			if !strings.HasPrefix(stderr.String(), fmt.Sprintf("%x", sum.Sum(nil))) {
				t.Errorf("piece %d is not what was written: %s", i, stderr.String())
			}
		}()
	}
	if rest, _ := io.ReadAll(stdout); len(rest) > 0 {
		t.Errorf("%d bytes too much", len(rest))
	}
	_ = c.Wait()
}

// TestRestart: a command that fails is started again, as often as was asked.
func TestRestart(t *testing.T) {
	r := newRig(t, 1)
	if o := r.run(t, bottle("--restart", "on-failure:2", "--", "sh", "-c", "echo x; exit 3")...); o.code != 3 || o.stdout != "x\nx\nx\n" {
		t.Errorf("always fails: %v", o)
	}
	o := r.run(t, bottle("--restart", "on-failure", "--", "sh", "-c", "echo x >>/tmp/x; [ $(wc -l </tmp/x) = 3 ] && cat /tmp/x")...)
	if o.code != 0 || o.stdout != "x\nx\nx\n" || strings.Count(o.stderr, "it is started again") != 2 {
		t.Errorf("succeeds the third time: %v", o)
	}
}

// TestLimitsOfTime: status 124, and a word on why.
func TestLimitsOfTime(t *testing.T) {
	r := newRig(t, 0)
	const busy = `i=0; while [ $i -lt 12 ]; do i=$((i+1)); sleep 0.1; %s; done; exec sleep 1000`
	for name, tc := range map[string]struct {
		flags       []string
		does        string
		least, most time.Duration
	}{
		"timeout":      {[]string{"--timeout", "1s"}, "echo x", time.Second, 6 * time.Second},
		"idle":         {[]string{"--idle-timeout", "700ms"}, "true", 700 * time.Millisecond, 1700 * time.Millisecond},
		"idle, output": {[]string{"--idle-timeout", "700ms"}, "echo x", 1700 * time.Millisecond, 8 * time.Second},
		"idle, transfers": {[]string{"--idle-timeout", "700ms", "--allow", "allowed.test"}, "probe http http://allowed.test/ >/dev/null",
			1700 * time.Millisecond, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			o := r.run(t, append(bottle(tc.flags...), "--", "sh", "-c", fmt.Sprintf(busy, tc.does))...)
			took := time.Since(start)
			if o.code != 124 || !strings.Contains(o.stderr, tc.flags[0]) || took < tc.least || took > tc.most+2*time.Second {
				t.Errorf("after %v: %v", took, o)
			}
			if o := r.run(t, "logs", "busybox"); !strings.Contains(o.stderr, tc.flags[0]) {
				t.Errorf("the log does not tell: %v", o)
			}
		})
	}
}

// TestReattached: a program that draws the whole screen draws it for a new
// viewer, in his size, and the keys to leave do not reach it.
func TestReattached(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, runtime := range runtimes {
			t.Run(runtime, func(t *testing.T) {
				name := r.detach(t, "--runtime", runtime, "-it", "--", "sh", "-c", `draw() { echo "size $(stty size)"; }; trap draw WINCH; draw; while :; do read line && echo "got $line"; done`)
				for range 2 {
					s := r.open(t, "attach", name)
					s.shows(t, "size 33 111\n")
					s.typed(t, "word\r")
					s.shows(t, "got word\n")
					s.typed(t, "\x10\x11")
					if code := s.ends(t); code != 0 {
						t.Errorf("detached with %d", code)
					}
				}
				if strings.Contains(r.mustRun(t, "logs", name), "\x10") {
					t.Error("the keys reached the command")
				}
				only := r.open(t, "attach", "--read-only", name)
				only.shows(t, "got word\n")
				only.typed(t, "more\r")
				r.mustRun(t, "stop", name)
				if code := only.ends(t); code != 143 || strings.Contains(only.screen.String(), "got more") {
					t.Errorf("a reader ended with %d: %s", code, only.screen.String())
				}
			})
		}
	})
}
