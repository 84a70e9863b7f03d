package world

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// The environment carries how deep a process is: nothing outside, "init" for
// PID 1, the mount namespace's own name inside. An inherited value that does
// not fit the process is ignored.
const (
	depthVar = "CARBOY_WORLD"
	dirVar   = "CARBOY_WORLD_DIR"
	depthIn  = "init"
)

// controlFD is where PID 1 reads the signals to pass on, one byte each. Its
// end of file means that the process outside is gone.
const controlFD = 3

// Enter returns nil in a private host: own processes, mounts, network and
// cgroups. Called outside, it runs the same command line again in a new one
// and exits with its status: call it first, before anything is made. What was
// started inside dies with it; the machine stays as it was.
func Enter() error {
	if Inside() {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("enter private host: this needs root: run it with sudo")
	}
	var status int
	var err error
	if os.Getenv(depthVar) == depthIn && os.Getpid() == 1 {
		status, err = runInit()
	} else {
		status, err = outside()
	}
	if err != nil {
		return fmt.Errorf("enter private host: %w", err)
	}
	os.Exit(status)
	return nil
}

// Inside tells whether this process is in a private host.
func Inside() bool {
	here, err := os.Readlink("/proc/self/ns/mnt")
	return err == nil && os.Getenv(depthVar) == here
}

// outside starts PID 1 of the private host, waits for its end and removes what
// it left on the machine.
func outside() (status int, err error) {
	dir, err := os.MkdirTemp("", "carboy-world-")
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, removeCgroups(filepath.Base(dir)), os.RemoveAll(dir))
	}()
	// World-searchable: users of containers have to get to what is mounted below.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	hear, say, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, say.Close()) }()

	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:gosec // this program itself
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), depthVar+"="+depthIn, dirVar+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{hear}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET}

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	if err := errors.Join(cmd.Start(), hear.Close()); err != nil {
		return 0, fmt.Errorf("make namespaces: %w", err)
	}
	go passOn(signals, say)

	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitCode(exit.Sys().(syscall.WaitStatus)), nil
	}
	return 0, err
}

var passedOn = []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

// passOn hands signals to PID 1, except those which the terminal has given to
// every process of this group already.
func passOn(signals <-chan os.Signal, to *os.File) {
	for s := range signals {
		if (s == syscall.SIGINT || s == syscall.SIGQUIT) && inForeground() {
			continue
		}
		if _, err := to.Write([]byte{byte(s.(syscall.Signal))}); err != nil {
			return // the host is gone, and Wait says so
		}
	}
}

func inForeground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
