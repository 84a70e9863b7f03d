package world

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// nestedVar says what TestNested does in a host of its own, inside this one.
const nestedVar = "CARBOY_WORLD_NESTED"

func nested(what string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-root", "-test.run=^TestNested$", "-test.v")
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, depthVar+"=") })
	cmd.Env = append(cmd.Env, nestedVar+"="+what)
	return cmd
}

// TestNested is run by the tests below; by itself it does nothing.
func TestNested(t *testing.T) {
	switch os.Getenv(nestedVar) {
	case "exit":
		os.Exit(42)
	case "die":
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {}
	case "signal":
		got := make(chan os.Signal, 1)
		signal.Notify(got, syscall.SIGINT)
		fmt.Println("ready")
		if s := <-got; s == syscall.SIGINT {
			os.Exit(7)
		}
	}
}

// TestStatus: the real process's end is the outer one's.
func TestStatus(t *testing.T) {
	if !*root {
		t.Skip(howto)
	}
	for what, want := range map[string]int{"exit": 42, "die": 128 + int(syscall.SIGKILL)} {
		cmd := nested(what)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: status %d (%v), want %d\n%s", what, got, err, want, out)
		}
	}
}

// TestSignal: what the process outside gets, the real one gets.
func TestSignal(t *testing.T) {
	if !*root {
		t.Skip(howto)
	}
	cmd := nested("signal")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("status %d (%v), want 7", cmd.ProcessState.ExitCode(), err)
	}
}
