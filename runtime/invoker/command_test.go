package invoker

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCommandIsTheUsersWhole(t *testing.T) {
	needRoot(t)
	t.Setenv("TOKEN", "s3cret")
	who := User{UID: 65534, GID: 65534, Groups: []int{4321}, Name: "nobody", Home: "/nonexistent"}
	out, err := who.Command(t.Context(), "sh", "-c", `id -u; id -g; id -G; grep CapEff /proc/self/status; pwd; env`).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"65534\n65534\n65534 4321\n", "CapEff:\t0000000000000000\n", "\n/\n", "HOME=/nonexistent\n", "/nonexistent/bin\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(string(out), "s3cret") {
		t.Errorf("the caller's environment is passed on: %s", out)
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	file := filepath.Join(t.TempDir(), "pid")
	c := User{UID: os.Getuid(), GID: os.Getgid()}.Command(ctx, "sh", "-c", `sleep 600 & echo $! > "$1"; wait`, "sh", file)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for deadline := time.Now().Add(10 * time.Second); pid == 0; {
		b, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		if time.Now().After(deadline) {
			t.Fatal("no child")
		}
	}
	cancel()
	if err := c.Wait(); err == nil {
		t.Error("it ended well")
	}
	for deadline := time.Now().Add(10 * time.Second); running(pid); {
		if time.Now().After(deadline) {
			t.Fatalf("its child %d lives", pid)
		}
	}
}

// running is false for what nobody has collected yet.
func running(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ") && syscall.Kill(pid, 0) == nil
}

func TestCommandThatIsNotThere(t *testing.T) {
	err := User{UID: os.Getuid(), GID: os.Getgid()}.Command(t.Context(), "no-such-program").Run()
	var exit *exec.ExitError
	const notFound = 127
	if !errors.As(err, &exit) || exit.ExitCode() != notFound {
		t.Errorf("%v", err)
	}
}
