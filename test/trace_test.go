package test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// traced is a run of carboy whose steps are followed from outside.
type traced struct {
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	output lockedBuffer
}

// follow starts a command line with a pipe that gets a line when a step begins
// and one when it ends.
func (r *rig) follow(t *testing.T, args ...string) *traced {
	t.Helper()
	hear, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	x := &traced{cmd: r.command(t, args...), lines: bufio.NewScanner(hear)}
	x.cmd.Env = append(x.cmd.Env, "CARBOY_TRACE_FD=3") // the first of ExtraFiles
	x.cmd.ExtraFiles = []*os.File{tell}
	x.cmd.Stdout, x.cmd.Stderr = &x.output, &x.output
	t.Cleanup(func() { _ = hear.Close() })
	err = x.cmd.Start()
	_ = tell.Close()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// await passes over lines up to this one.
func (x *traced) await(line string) bool {
	for x.lines.Scan() {
		if x.lines.Text() == line {
			return true
		}
	}
	return false
}

// kill ends carboy like a crash would, and tells whether that was in time.
func (x *traced) kill() bool {
	_ = x.cmd.Process.Kill() // it may have ended
	_ = x.cmd.Wait()
	return x.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// steps are the distinct lines of a run in which nothing goes wrong, and how
// long it takes.
func (r *rig) steps(t *testing.T, args ...string) (lines []string, took time.Duration) {
	t.Helper()
	start := time.Now()
	x := r.follow(t, args...)
	for x.lines.Scan() {
		if line := x.lines.Text(); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if err := x.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, x.output.String())
	}
	for _, line := range []string{"begin claim", "begin network", "begin proxy health", "begin agent command", "end agent command", "begin tear-down", "end remove lease", "end tear-down"} {
		if !slices.Contains(lines, line) {
			t.Errorf("the trace lacks %q: %q", line, lines)
		}
	}
	return lines, time.Since(start)
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
