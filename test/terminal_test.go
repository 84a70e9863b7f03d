package test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// session is a command line of carboy on a terminal of its own.
type session struct {
	cmd    *exec.Cmd
	master *os.File
	slave  *os.File
	screen lockedBuffer
	done   chan struct{}
}

// open starts a command line as the leader of a terminal of 33 by 111.
func (r *rig) open(t *testing.T, args ...string) *session {
	t.Helper()
	return r.openWith(t, nil, args...)
}

// openWith is open with further variables.
func (r *rig) openWith(t *testing.T, env []string, args ...string) *session {
	t.Helper()
	s := &session{cmd: r.command(t, args...), done: make(chan struct{})}
	s.master, s.slave = newTerminal(t)
	s.resize(t, 33, 111)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.slave, s.slave, s.slave
	s.cmd.Env = append(append(s.cmd.Env, "TERM=vt220"), env...)
	endGently(s.cmd)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(&s.screen, s.master) }() // ends with the master
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() { <-s.done })
	return s
}

// endGently leaves a carboy whose test has failed the time to tear down.
func endGently(c *exec.Cmd) {
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = runTime / 3
}

// newTerminal's descriptors do not block, so that they can be closed while
// somebody reads.
func newTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	const flags = os.O_RDWR | unix.O_NOCTTY | unix.O_NONBLOCK
	master, err := os.OpenFile("/dev/ptmx", flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	var number int
	control(t, master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

func control(t *testing.T, f *os.File, do func(fd int) error) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil || doErr != nil {
		t.Fatal(err, doErr)
	}
}

func (s *session) resize(t *testing.T, rows, cols uint16) {
	t.Helper()
	control(t, s.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

func (s *session) termios(t *testing.T) (set unix.Termios) {
	t.Helper()
	control(t, s.slave, func(fd int) error {
		got, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			set = *got
		}
		return err
	})
	return set
}

func (s *session) raw(t *testing.T) bool {
	t.Helper()
	return s.termios(t).Lflag&(unix.ICANON|unix.ISIG|unix.ECHO) == 0
}

// typed sends keys.
func (s *session) typed(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// shows waits for lines on the screen.
func (s *session) shows(t *testing.T, text string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(strings.ReplaceAll(s.screen.String(), "\r", ""), text) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the screen:\n%s", text, s.screen.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ends waits for carboy's end and returns its exit code, -1 for a signal.
func (s *session) ends(t *testing.T) int {
	t.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(runTime):
		t.Fatalf("carboy does not end:\n%s", s.screen.String())
		return 0
	}
}

// trap is an agent that ends by itself when it is asked to, and says when it is
// ready for that. Its waits are short: a shell traps between two commands.
const trap = `trap 'echo asked; exit 7' TERM; echo ready-$((1+1)); while :; do sleep 0.05; done`

// TestTerminal works in a bottle as a person does.
func TestTerminal(t *testing.T) {
	r := newRig(t, 0)
	for _, runtime := range runtimes {
		t.Run(runtime, func(t *testing.T) {
			// The first size has to be there before the agent's first instruction.
			s := r.open(t, append(bottle("--runtime", runtime), "--", "sh", "-c", "stty size; echo term-$TERM; exec sh")...)
			before := s.termios(t)
			s.shows(t, "33 111\nterm-vt220\n")
			if !s.raw(t) {
				t.Error("the terminal is not raw while the agent has it")
			}
			// The agent's own terminal made the end of the line what it is.
			if !strings.Contains(s.screen.String(), "33 111\r\nterm-vt220\r\n") {
				t.Errorf("the output was changed on its way: %q", s.screen.String())
			}
			checkKeys(t, s)
			checkResize(t, s)
			s.typed(t, "exit 42\r")
			if code := s.ends(t); code != 42 {
				t.Errorf("exit %d, want 42:\n%s", code, s.screen.String())
			}
			if s.termios(t) != before {
				t.Error("the terminal is not as before")
			}
		})
	}
}

// checkKeys: Ctrl-C is the foreground program's, and nobody else's.
func checkKeys(t *testing.T, s *session) {
	t.Helper()
	s.typed(t, "echo said >/dev/tty && tty\r")
	s.shows(t, "said\n/dev/pts/")
	if strings.Contains(s.screen.String(), "job control turned off") {
		t.Errorf("the agent has no controlling terminal:\n%s", s.screen.String())
	}
	s.typed(t, "sh -c 'echo up-$((1+1)); exec sleep 1000'\r")
	s.shows(t, "up-2\n")
	s.typed(t, "\x03")
	s.typed(t, "echo code-$?\r")
	s.shows(t, "code-130\n")
}

func checkResize(t *testing.T, s *session) {
	t.Helper()
	s.typed(t, `sh -c 'trap "stty size; exit" WINCH; echo wait-$((1+1)); while :; do sleep 0.05; done'`+"\r")
	s.shows(t, "wait-2\n")
	s.resize(t, 44, 122)
	s.shows(t, "44 122\n")
}

// TestSignals ends carboy in every way that leaves it time.
func TestSignals(t *testing.T) {
	r := newRig(t, 0)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		s := r.open(t, append(bottle("--"), "sh", "-c", trap)...)
		before := s.termios(t)
		s.shows(t, "ready-2\n")
		if !s.raw(t) {
			t.Error("control: the terminal is not raw while the agent has it")
		}
		if err := s.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		s.shows(t, "asked\n")
		if code := s.ends(t); code != 7 {
			t.Errorf("%v: exit %d, want the agent's 7:\n%s", signal, code, s.screen.String())
		}
		if s.termios(t) != before {
			t.Errorf("%v: the terminal is not as before", signal)
		}
	}
	t.Run("the terminal goes away", func(t *testing.T) {
		s := r.open(t, append(bottle("--"), "sh", "-c", trap)...)
		s.shows(t, "ready-2\n")
		if err := s.master.Close(); err != nil {
			t.Fatal(err)
		}
		if code := s.ends(t); code != 7 {
			t.Errorf("exit %d, want the agent's 7", code)
		}
	})
}

// TestSlowEnds asks bottles to end at once, because all of them take their time.
func TestSlowEnds(t *testing.T) {
	r := newRig(t, 0)
	agent := func(runtime, user, rest string) *piped {
		c := r.command(t, bottle("--runtime", runtime, "--user", user, "--", "sh", "-c", `trap "" TERM; echo ready; read line; `+rest)...)
		input, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		p := newPiped(t, c)
		if line := p.line(t); line != "ready\n" {
			t.Fatalf("got %q:\n%s", line, p.stderr.String())
		}
		if _, err := io.WriteString(input, "go\n"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	deaf := agent("runc", "", "exec sleep 1000")
	stuck := agent("runc", "", "exec probe spam 1000000000")          // nobody reads
	frozen := agent("runsc", "root", "kill -STOP 1; exec sleep 1000") // Linux protects PID 1 from this, runsc does not
	all := []*piped{deaf, stuck, frozen}
	eventually(t, "the output is stuck", func() bool { return blockedInWrite(stuck.cmd.Process.Pid) })
	asked := time.Now()
	for _, p := range all {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range all {
		p.wait(t)
	}
	if took := deaf.end.Sub(asked); took < 10*time.Second || took > 14*time.Second || deaf.cmd.ProcessState.ExitCode() != 137 {
		t.Errorf("an agent that ignores SIGTERM: %v after %v, want 137 after 10 s", deaf.cmd.ProcessState, took)
	}
	for _, p := range []*piped{stuck, frozen} {
		if took := p.end.Sub(asked); took > 18*time.Second || p.cmd.ProcessState.ExitCode() != 125 {
			t.Errorf("%v: %v after %v:\n%s", p.cmd.Args, p.cmd.ProcessState, took, p.stderr.String())
		}
	}
}

// piped is a command line with a pipe as its output.
type piped struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	pipe   *os.File
	stderr lockedBuffer
	end    time.Time
	done   chan struct{}
}

func newPiped(t *testing.T, c *exec.Cmd) *piped {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &piped{cmd: c, pipe: r, out: bufio.NewReaderSize(r, 16), done: make(chan struct{})}
	endGently(c)
	c.Stdout, c.Stderr = w, &p.stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go func() {
		_ = c.Wait()
		p.end = time.Now()
		close(p.done)
	}()
	t.Cleanup(func() {
		<-p.done
		_ = r.Close()
	})
	return p
}

func (p *piped) line(t *testing.T) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Errorf("read %q: %v:\n%s", line, err, p.stderr.String())
	}
	return line
}

func (p *piped) wait(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(runTime):
		t.Fatalf("carboy does not end:\n%s", p.stderr.String())
	}
}

// blockedInWrite tells whether a thread of the process waits for a full pipe.
func blockedInWrite(pid int) bool {
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, thread := range threads {
		call, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/syscall", pid, thread.Name()))
		if number, _, _ := strings.Cut(string(call), " "); err == nil && number == fmt.Sprint(unix.SYS_WRITE) {
			return true
		}
	}
	return false
}

// TestReaderGoes closes carboy's outputs early, as head does.
func TestReaderGoes(t *testing.T) {
	r := newRig(t, 0)
	t.Run("while the agent talks", func(t *testing.T) {
		p := newPiped(t, r.command(t, bottle("--", "probe", "spam", "1000000000")...))
		if line := p.line(t); line != "000000000000000\n" {
			t.Errorf("got %q", line)
		}
		if err := p.pipe.Close(); err != nil {
			t.Fatal(err)
		}
		gone := time.Now()
		p.wait(t)
		if took := p.end.Sub(gone); took > 15*time.Second || p.cmd.ProcessState.ExitCode() <= 0 {
			t.Errorf("%v after %v:\n%s", p.cmd.ProcessState, took, p.stderr.String())
		}
	})
	t.Run("of everything, before the start", func(t *testing.T) {
		c := r.command(t, bottle("--", "probe", "spam", "1000000000")...)
		throughShell(c, `{ "$@" 2>&1; echo $? >&3; } | head -1`)
		status, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c.ExtraFiles = []*os.File{w}
		o := finish(t, c)
		_ = w.Close()
		code, err := io.ReadAll(status)
		if !strings.HasPrefix(o.stdout, "agent ") || err != nil || len(code) == 0 || string(code) == "0\n" {
			t.Errorf("carboy's exit code %q, %v: %v", code, err, o)
		}
	})
}

const outputSize = 10 << 20

// TestStreams carries more of everything than any buffer holds.
func TestStreams(t *testing.T) {
	want, err := exec.Command(shared.probe, "spam", fmt.Sprint(outputSize)).Output()
	if *root && (err != nil || len(want) != outputSize) {
		t.Fatalf("%d bytes, %v", len(want), err)
	}
	onEach(t, func(t *testing.T, r *rig) {
		input := make([]byte, 3<<20+1)
		_, _ = rand.Read(input) // never fails (crypto/rand)
		for _, runtime := range runtimes {
			c := r.command(t, append(bottle("--runtime", runtime), "--", "sh", "-c", fmt.Sprintf("echo apart >&2; sha256sum; probe spam %d", outputSize))...)
			c.Stdin = bytes.NewReader(input)
			o := finish(t, c)
			sum, rest, _ := strings.Cut(o.stdout, "  -\n")
			if o.code != 0 || sum != fmt.Sprintf("%x", sha256.Sum256(input)) {
				t.Errorf("%s: exit %d, checksum %.100q:\n%s", runtime, o.code, sum, o.stderr)
			}
			if rest != string(want) {
				t.Errorf("%s: %d bytes of output are not the %d that were written", runtime, len(rest), len(want))
			}
			if !strings.HasSuffix(o.stderr, "\napart\n") {
				t.Errorf("%s: stderr is %q", runtime, o.stderr)
			}
		}
	})
}

// TestOpenInput: an input that does not end keeps nobody.
func TestOpenInput(t *testing.T) {
	r := newRig(t, 0)
	for _, args := range [][]string{
		bottle("-i=false", "--", "cat"), // has no input
		bottle("--", "true"),            // does not read it
	} {
		c := r.command(t, args...)
		input, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if o := finish(t, c); o.code != 0 || o.stdout != "" {
			t.Errorf("%v: %v", args, o)
		}
		_ = input.Close()
	}
}
