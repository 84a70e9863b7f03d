package world

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// runInit is PID 1 of the private host: it prepares the host, runs the real
// process, reaps what others leave to it, and ends with the real process. The
// kernel then kills all that is left.
func runInit() (int, error) {
	// The cgroup namespace belongs to a thread, and the child is to inherit it.
	runtime.LockOSThread()
	control := os.NewFile(controlFD, "control")
	unix.CloseOnExec(controlFD)
	// Heard and dropped: what the terminal sends reaches the real process itself.
	signal.Notify(make(chan os.Signal, 1), passedOn...)

	dir := os.Getenv(dirVar)
	if err := prepare(dir); err != nil {
		return 0, err
	}
	pid, err := startReal(dir)
	if err != nil {
		return 0, err
	}
	go relay(control, pid)
	status, err := reap(pid)
	return exitCode(status), errors.Join(err, thaw())
}

func prepare(dir string) error {
	groups, err := joinCgroups(filepath.Base(dir))
	if err != nil {
		return fmt.Errorf("private cgroups: %w", err)
	}
	if err := makeMounts(dir, groups); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func startReal(dir string) (int, error) {
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return 0, err
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil { //nolint:gosec // below a directory of our own
		return 0, err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, depthVar+"=") || strings.HasPrefix(v, dirVar+"=") || strings.HasPrefix(v, "TMPDIR=")
	})
	env = append(env, depthVar+"="+here, "TMPDIR="+tmp)
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}}) //nolint:gosec // this program itself
	if err != nil {
		return 0, fmt.Errorf("start %s again: %w", os.Args[0], err)
	}
	return pid, nil
}

// relay passes signals on until the process outside is gone, and ends the host
// then.
func relay(control io.Reader, pid int) {
	buf := make([]byte, 1)
	for {
		if _, err := io.ReadFull(control, buf); err != nil {
			os.Exit(128 + int(syscall.SIGKILL))
		}
		_ = syscall.Kill(pid, syscall.Signal(buf[0])) // it may have ended just now
	}
}

// reap waits for every process that ends, until it is pid.
func reap(pid int) (status syscall.WaitStatus, err error) {
	for {
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return status, fmt.Errorf("wait: %w", err)
		case got == pid:
			return status, nil
		}
	}
}
