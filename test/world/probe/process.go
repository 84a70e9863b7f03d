package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// machineNamespace is the first pid namespace of every kernel (PROC_PID_INIT_INO).
const machineNamespace = "pid:[4026531836]"

// inContainer ends the probe where PID 1 is the machine's.
func inContainer() {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns == machineNamespace {
		fail("this is no container, and PID 1 is the machine's\n")
	}
}

// signalInit sends PID 1 every signal. One that is reported as ok may still have
// been ignored: look whether the bottle lives.
func signalInit() {
	inContainer()
	for n := syscall.Signal(1); n <= 64; n++ {
		report("kill", fmt.Sprintf("1 signal %d", n), nil, syscall.Kill(1, n))
	}
}

// reachInit tries what would give an agent PID 1 or its secrets.
func reachInit() {
	inContainer()
	for _, file := range []string{"environ", "mem", "maps", "cmdline", "cwd/.", "root/."} {
		readProc(file)
	}
	fds, err := os.ReadDir("/proc/1/fd")
	report("list", "/proc/1/fd", len(fds), err)
	// Without a list the names are easily guessed.
	for fd := range 16 {
		openFD(filepath.Join("/proc/1/fd", strconv.Itoa(fd)))
	}
	runtime.LockOSThread()
	err = unix.PtraceAttach(1)
	report("ptrace-attach", "1", nil, err)
	if err == nil {
		_ = unix.PtraceDetach(1)
	}
	err = unix.PtraceSeize(1)
	report("ptrace-seize", "1", nil, err)
	runtime.UnlockOSThread()
	local := make([]byte, 8)
	_, err = unix.ProcessVMReadv(1, []unix.Iovec{{Base: &local[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	report("process_vm_readv", "1", nil, err)
	pidfd, err := unix.PidfdOpen(1, 0)
	if err == nil {
		_, err = unix.PidfdGetfd(pidfd, 0, 0)
	}
	report("pidfd_getfd", "1", nil, err)
}

func readProc(file string) {
	path := filepath.Join("/proc/1", file)
	f, err := os.Open(path) //nolint:gosec // it is what a probe is for
	if err == nil {
		if st, e := f.Stat(); e == nil && !st.IsDir() {
			if _, err = f.Read(make([]byte, 64)); errors.Is(err, io.EOF) {
				err = nil
			}
		}
		_ = f.Close()
	}
	report("read", path, nil, err)
}

// openFD opens for reading and for writing, and never waits for a peer.
func openFD(path string) {
	for what, mode := range map[string]int{"open-read": unix.O_RDONLY, "open-write": unix.O_WRONLY} {
		fd, err := unix.Open(path, mode|unix.O_NONBLOCK, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		report(what, path, nil, err)
	}
}

func env() { report("env", "", os.Environ(), nil) }

func caps() {
	value := map[string]string{"Uid": strconv.Itoa(os.Getuid()), "Gid": strconv.Itoa(os.Getgid())}
	status, err := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		name, v, _ := strings.Cut(line, ":")
		if strings.HasPrefix(name, "Cap") || name == "NoNewPrivs" || name == "Seccomp" || name == "Groups" {
			value[name] = strings.TrimSpace(v)
		}
	}
	report("caps", "", value, err)
}

// limits prints the soft and hard limits, and those of the cgroup where it shows.
func limits() {
	value := map[string]any{"cpus": runtime.NumCPU()}
	for name, which := range map[string]int{
		"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "core": unix.RLIMIT_CORE, "memlock": unix.RLIMIT_MEMLOCK,
	} {
		var l unix.Rlimit
		if err := unix.Getrlimit(which, &l); err == nil {
			value[name] = []uint64{l.Cur, l.Max}
		}
	}
	for _, file := range []string{
		"memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us", "memory.max", "pids.max", "cpu.max",
	} {
		if b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", file)); err == nil {
			value[file] = strings.TrimSpace(string(b))
		}
	}
	report("limits", "", value, nil)
}

func mounts() {
	b, err := os.ReadFile("/proc/self/mounts")
	report("mounts", "", strings.Split(strings.TrimSpace(string(b)), "\n"), err)
}

// winsize tells for each standard stream whether it is a terminal, and how big.
func winsize() {
	for fd := range 3 {
		size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		var value any
		if err == nil {
			value = []uint16{size.Row, size.Col}
		}
		report("winsize", strconv.Itoa(fd), value, err)
	}
}

// spam writes lines that number themselves, so that a loss shows.
func spam(n int) {
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	for line := 0; n > 0; line++ {
		s := fmt.Sprintf("%015d\n", line)
		s = s[:min(len(s), n)]
		n -= len(s)
		if _, err := w.WriteString(s); err != nil {
			os.Exit(1)
		}
	}
	if w.Flush() != nil {
		os.Exit(1)
	}
}

func cat() {
	if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
		os.Exit(1)
	}
}

// resetAndKill gives a signal its default first, which Go has changed.
func resetAndKill(s syscall.Signal) error {
	signal.Reset(s)
	return syscall.Kill(os.Getpid(), s)
}
