package netns

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"carboy/netns/sysctl"
)

// hardening is set before any link is plugged. A fresh namespace inherits
// ip_forward from the host's.
var hardening = map[string]string{
	"net/ipv4/ip_forward":                "0",
	"net/ipv6/conf/all/disable_ipv6":     "1",
	"net/ipv6/conf/default/disable_ipv6": "1",
	"net/ipv4/conf/all/arp_ignore":       "1", // answer for an address on its own link only
	"net/ipv4/conf/default/arp_ignore":   "1",
	"net/ipv4/conf/all/rp_filter":        "1",
	"net/ipv4/conf/default/rp_filter":    "1",
}

// newNamespace returns a descriptor of a hardened namespace with its loopback
// up.
func newNamespace() (ns *os.File, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := harden(); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find loopback: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set loopback up: %w", err)
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

func harden() error {
	for key, value := range hardening {
		err := sysctl.Set(key, value)
		if os.IsNotExist(err) && strings.HasPrefix(key, "net/ipv6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inNamespace runs f on a thread that is in the namespace.
func inNamespace(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

func isNamespace(f *os.File) (bool, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	return st.Type == unix.NSFS_MAGIC, err
}

// onThread runs f on a thread of its own, which ends with it: its namespace
// leaks into no other goroutine. That is never the main thread, which would not
// end but hold the namespace, and have /proc/PID/ns/net name it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f() // and never unlock
	}()
	return <-done
}
