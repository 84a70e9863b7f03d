package world

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

var root = flag.Bool("root", false, "run the tests that need root")

const howto = "needs root: sudo go test ./test/world -root"

// nonceVar marks every process of a run of these tests.
const nonceVar = "CARBOY_WORLD_TEST"

// TestMain enters a private host, and looks from outside what that leaves on
// the machine.
func TestMain(m *testing.M) {
	flag.Parse()
	if !*root {
		os.Exit(m.Run())
	}
	if os.Getenv(nonceVar) == "" {
		os.Exit(watched())
	}
	if err := Enter(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// watched runs the tests in another process and compares the machine with before.
func watched() int {
	status, err := compareMachine(os.Args[1:], func(cmd *exec.Cmd) error {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	})
	if err == nil {
		_, err = compareMachine([]string{"-root", "-test.run=^TestHang$", "-test.v"}, killOutside)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "FAIL: the machine after a private host:", err)
		return 1
	}
	return status
}

// compareMachine runs these tests with a nonce and a temporary directory.
func compareMachine(args []string, run func(*exec.Cmd) error) (status int, err error) {
	tmp, err := os.MkdirTemp("", "watched-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	before, err := machine(tmp)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), nonceVar+"="+tmp, "TMPDIR="+tmp)
	err = run(cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, err = exit.ExitCode(), nil
	}
	if err != nil {
		return 0, err
	}
	after, err := machine(tmp)
	if err != nil {
		return 0, err
	}
	if diff := Diff(before, after); diff != "" {
		return 0, errors.New(diff)
	}
	return status, nil
}

// killOutside kills the process outside: nothing inside may outlive it. What
// it alone could have removed is removed here.
func killOutside(cmd *exec.Cmd) error {
	var out bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = w, &out
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("the hanging test: %w\n%s", err, &out)
	}
	_ = cmd.Process.Kill() // Wait says how it ended
	tmp := tempDir(cmd.Env)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left, err := marked(tmp)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("outlived the process outside: %q", left)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(tmp, "*"))
	for _, d := range dirs {
		err = errors.Join(err, removeCgroups(filepath.Base(d)), os.RemoveAll(d))
	}
	return errors.Join(err, r.Close(), ignoreExit(cmd.Wait()))
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return fmt.Errorf("the killed process: %w", err)
}

func tempDir(env []string) string {
	i := slices.IndexFunc(env, func(v string) bool { return strings.HasPrefix(v, nonceVar+"=") })
	return strings.TrimPrefix(env[i], nonceVar+"=")
}

// machine is the real host, as far as others do not change it meanwhile.
func machine(tmp string) (Host, error) {
	h := Host{}
	all, err := mounts(context.Background())
	if err != nil {
		return nil, err
	}
	h["mounts"] = all
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		h["links"] = append(h["links"], l.Attrs().Name)
	}
	if h["processes"], err = marked(tmp); err != nil {
		return nil, err
	}
	for _, dir := range []string{"/run", "/etc", "/opt", "/var/log", "/var/lib", "/root", "/root/.config", tmp} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			h["files"] = append(h["files"], filepath.Join(dir, e.Name()))
		}
	}
	h["cgroups"], err = ownerlessGroups()
	return h, err
}

// ownerlessGroups lists the groups of private hosts that have no process.
func ownerlessGroups() ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, h := range all {
		found, err := filepath.Glob(filepath.Join(h.own, "carboy-world-*"))
		if err != nil {
			return nil, err
		}
		for _, g := range found {
			if b, err := os.ReadFile(filepath.Join(g, "cgroup.procs")); err == nil && len(b) == 0 {
				lines = append(lines, g)
			}
		}
	}
	return lines, nil
}

// marked lists the processes with our nonce, this one excepted.
func marked(nonce string) (lines []string, err error) {
	err = eachProcess(func(pid int, dir string) error {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if errors.Is(err, fs.ErrPermission) {
			return nil // the machine's own PID 1 may guard its
		}
		if err == nil && bytes.Contains(env, []byte(nonceVar+"="+nonce+"\x00")) {
			argv, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			lines = append(lines, fmt.Sprint(pid, " ", strings.ReplaceAll(string(argv), "\x00", " ")))
		}
		return err
	})
	return lines, err
}

// TestHang is run by TestMain, which kills the process outside.
func TestHang(t *testing.T) {
	if !Inside() || flag.Lookup("test.run").Value.String() != "^TestHang$" {
		return
	}
	w := newWorld(t)
	versions, err := Versions()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Containerd(t.Context(), versions[0]); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("sleep", "3600").Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	select {}
}

func newWorld(t *testing.T) *World {
	t.Helper()
	if !*root {
		t.Skip(howto)
	}
	w, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}
