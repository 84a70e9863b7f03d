package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"carboy/runtime/initproto"
)

var rootFlag = flag.Bool("root", false, "run the tests that need root")

func TestMain(m *testing.M) {
	if os.Getenv("CARBOY_INIT_UNDER_TEST") != "" {
		if err := run(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(125)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// spawn runs the real carboy-init as a child with its two pipes.
func spawn(t *testing.T) (*initproto.Client, *exec.Cmd, io.Closer) {
	t.Helper()
	if !*rootFlag {
		t.Skip("needs root: go test ./cmd/carboy-init -root")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = []string{"CARBOY_INIT_UNDER_TEST=1"}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := initproto.NewClient(out, in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	return c, cmd, in
}

func sealed(t *testing.T) *initproto.Client {
	t.Helper()
	c, _, _ := spawn(t)
	if err := c.Seal(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func runSpec(t *testing.T, c *initproto.Client, spec initproto.Spec, in io.Reader) (initproto.Exit, string, string) {
	t.Helper()
	var out, errOut bytes.Buffer
	if spec.User == "" {
		spec.User = "65534:65534"
	}
	if spec.Dir == "" {
		spec.Dir = "/"
	}
	p, err := c.Start(spec, initproto.Streams{Stdin: in, Stdout: &out, Stderr: &errOut})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatalf("wait: %v", err)
	}
	return exit, out.String(), errOut.String()
}

func TestExitStatus(t *testing.T) {
	c := sealed(t)
	for _, tt := range []struct {
		name string
		args []string
		want int
	}{
		{"zero", []string{"true"}, 0},
		{"code", []string{"sh", "-c", "exit 42"}, 42},
		{"signal", []string{"sh", "-c", "kill -TERM $$"}, 143},
		{"kill", []string{"sh", "-c", "kill -KILL $$"}, 137},
		{"missing", []string{"no-such-command"}, 127},
		{"missing path", []string{"/no/such/command"}, 127},
		{"not executable", []string{"/etc/passwd"}, 126},
		{"directory", []string{"/etc"}, 126},
		{"empty", nil, 127},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exit, _, _ := runSpec(t, c, initproto.Spec{Args: tt.args}, nil)
			if exit.Status() != tt.want {
				t.Errorf("status %d (%s), want %d", exit.Status(), exit.Reason, tt.want)
			}
		})
	}
}

func TestStreamsIntact(t *testing.T) {
	c := sealed(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16)
	exit, out, _ := runSpec(t, c, initproto.Spec{Args: []string{"cat"}}, bytes.NewReader(data))
	if exit.Status() != 0 || sha256.Sum256([]byte(out)) != sha256.Sum256(data) {
		t.Fatalf("status %d, %d of %d bytes", exit.Status(), len(out), len(data))
	}
}

func TestStderrApart(t *testing.T) {
	_, out, errOut := runSpec(t, sealed(t), initproto.Spec{Args: []string{"sh", "-c", "echo a; echo b >&2"}}, nil)
	if out != "a\n" || errOut != "b\n" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
}

// blocked never takes a byte until it is closed.
type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) { <-b; return len(p), nil }

func TestStalledReaderBlocksNobodyElse(t *testing.T) {
	c := sealed(t)
	stall := make(blocked)
	p, err := c.Start(initproto.Spec{Args: []string{"yes"}, User: "65534:65534", Dir: "/"}, initproto.Streams{Stdout: stall})
	if err != nil {
		t.Fatal(err)
	}
	exit, out, _ := runSpec(t, c, initproto.Spec{Args: []string{"echo", "free"}}, nil)
	if exit.Status() != 0 || out != "free\n" {
		t.Errorf("status %d, output %q", exit.Status(), out)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	close(stall)
	if got, err := p.Wait(t.Context()); err != nil || got.Status() != 137 {
		t.Errorf("status %d, %v", got.Status(), err)
	}
}

func TestTerminal(t *testing.T) {
	spec := initproto.Spec{Args: []string{"sh", "-c", "tty >/dev/null && stty size && stat -c %u $(tty)"}, TTY: true, Size: initproto.Size{Rows: 31, Cols: 97}}
	exit, out, _ := runSpec(t, sealed(t), spec, nil)
	if exit.Status() != 0 || out != "31 97\r\n65534\r\n" {
		t.Errorf("status %d, output %q", exit.Status(), out)
	}
}

func TestGrandchildHoldsOutputOpen(t *testing.T) {
	start := time.Now()
	_, out, _ := runSpec(t, sealed(t), initproto.Spec{Args: []string{"sh", "-c", "sleep 15 & echo done"}}, nil)
	if out != "done\n" || time.Since(start) > 5*time.Second {
		t.Errorf("output %q after %v", out, time.Since(start))
	}
}

func TestCapabilitiesAreGone(t *testing.T) {
	c := sealed(t)
	for _, user := range []string{"65534:65534", "0:0"} {
		_, out, _ := runSpec(t, c, initproto.Spec{Args: []string{"grep", "-E", "Cap(Prm|Eff|Bnd|Amb)", "/proc/self/status"}, User: user}, nil)
		if n := strings.Count(out, "\t0000000000000000\n"); n != 4 {
			t.Errorf("user %s:\n%s", user, out)
		}
	}
}

func TestNoCommandBeforeSealNoFileAfter(t *testing.T) {
	c, _, _ := spawn(t)
	file := filepath.Join(t.TempDir(), "deep", "secret")
	if err := c.Put(t.Context(), initproto.File{Path: file, Mode: 0o400, Owner: "65534:65534", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode() != 0o400 || st.Sys().(*syscall.Stat_t).Uid != 65534 {
		t.Errorf("file %v, %v", st, err)
	}
	if exit, _, _ := runSpec(t, c, initproto.Spec{Args: []string{"true"}}, nil); exit.Status() != 125 {
		t.Errorf("a command ran before the seal: %d", exit.Status())
	}
	if err := c.Seal(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), initproto.File{Path: file, Data: []byte("y")}); err == nil {
		t.Error("a file was written after the seal")
	}
}

func TestDiesWithItsSupervisor(t *testing.T) {
	c, cmd, in := spawn(t)
	if err := c.Seal(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("carboy-init lives on")
	}
	if err := cmd.Wait(); err != nil || !errors.Is(c.Err(), io.EOF) {
		t.Errorf("exit %v, connection %v", err, c.Err())
	}
}

func osPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// duplex is a connection of two pipes.
type duplex struct {
	io.Reader
	io.WriteCloser
}

func TestRelay(t *testing.T) {
	c := sealed(t)
	toServer, fromPeer := osPipe(t)
	toPeer, fromServer := osPipe(t)
	relayed := make(chan error, 1)
	go func() {
		relayed <- c.Relay(t.Context(), duplex{toServer, fromServer}, func(s initproto.Spec) initproto.Spec { return s }, nil, nil)
		_ = fromServer.Close()
	}()
	peer, err := initproto.NewClient(toPeer, fromPeer)
	if err != nil {
		t.Fatal(err)
	}
	exit, out, _ := runSpec(t, peer, initproto.Spec{Args: []string{"sh", "-c", "cat; exit 7"}}, strings.NewReader("through"))
	if exit.Status() != 7 || out != "through" {
		t.Errorf("status %d, output %q", exit.Status(), out)
	}
	if _, err := peer.Start(initproto.Spec{Args: []string{"sleep", "100"}, User: "65534", Dir: "/"}, initproto.Streams{}); err != nil {
		t.Fatal(err)
	}
	if err := fromPeer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-relayed; err != nil {
		t.Errorf("relay: %v", err)
	}
	if err := peer.Put(t.Context(), initproto.File{Path: "/x"}); err == nil {
		t.Error("a peer may write files")
	}
}
