package world

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace held by a descriptor: it has no name in the
// file system, and ends with the process.
type namespace struct{ file *os.File }

const threadNet = "/proc/thread-self/ns/net"

func openNamespace() (*namespace, error) {
	f, err := os.Open(threadNet)
	if err != nil {
		return nil, err
	}
	return &namespace{file: f}, nil
}

func newNamespace() (n *namespace, err error) {
	enter := func() error { return unix.Unshare(unix.CLONE_NEWNET) }
	err = elsewhere(enter, func() (err error) {
		n, err = openNamespace()
		return err
	})
	return n, err
}

// do calls f on a thread in the namespace. Sockets made there stay there.
func (n *namespace) do(f func() error) error {
	return elsewhere(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, f)
}

// elsewhere calls f on a thread that enter has moved. The thread comes back:
// were it the process's first, /proc/PID/ns/net would name the wrong place.
func elsewhere(enter, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(threadNet)
		if err != nil {
			done <- err
			return
		}
		if err = enter(); err == nil {
			err = f()
		}
		back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread()
		}
		done <- errors.Join(err, back, home.Close())
	}()
	return <-done
}

// setNet writes a sysctl of the calling thread's namespace, by its path below
// /proc/sys/net.
func setNet(name, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl net/%s: %w", name, err)
	}
	return nil
}
