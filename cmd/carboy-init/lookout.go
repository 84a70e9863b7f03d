package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"carboy/runtime/verify/inside"
)

// lookout writes down what can be seen from inside.
type lookout struct{ *inside.Account }

func (l lookout) around() {
	l.UID = os.Getuid()
	l.NoNewPrivs, l.Seccomp = processFlag(unix.PR_GET_NO_NEW_PRIVS) == 1, processFlag(unix.PR_GET_SECCOMP)
	l.processes()
	l.network()
	l.resolvers()
	l.devices()
	for _, path := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory",
		"/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/proc/kcore", "/dev/mem", "/dev/kmsg",
	} {
		if canWrite(path) {
			l.Writable = append(l.Writable, path)
		}
	}
}

func processFlag(option int) int {
	value, _, errno := unix.Syscall6(unix.SYS_PRCTL, uintptr(option), 0, 0, 0, 0, 0)
	if errno != 0 {
		return -1
	}
	return int(value)
}

// read returns the lines of a file of the kernel's, as fields.
func (l lookout) read(name string) (lines [][]string) {
	b, err := os.ReadFile(name)
	if err != nil {
		l.Errors = append(l.Errors, err.Error())
	}
	for line := range strings.Lines(string(b)) {
		lines = append(lines, strings.Fields(line))
	}
	return lines
}

func (l lookout) processes() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		l.Errors = append(l.Errors, err.Error())
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if b, err := os.ReadFile("/proc/" + e.Name() + "/status"); err == nil { // else it has just ended
			l.Processes = append(l.Processes, rights(pid, string(b)))
		}
	}
}

func rights(pid int, status string) inside.Process {
	p := inside.Process{PID: pid}
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		switch {
		case err != nil:
		case key == "CapBnd":
			p.Bounding = set
		case strings.HasPrefix(key, "Cap"):
			p.Has |= set
		}
	}
	return p
}

// network is what the kernel, or the sandbox's own, says of it.
func (l lookout) network() {
	for _, fields := range l.read("/proc/net/dev") {
		if name, ok := strings.CutSuffix(fields[0], ":"); ok {
			l.Links = append(l.Links, name)
		}
	}
	slices.Sort(l.Links)
	for i, fields := range l.read("/proc/net/route") {
		if i == 0 {
			continue
		}
		r, err := route(fields)
		if err != nil {
			l.Errors = append(l.Errors, err.Error())
		}
		l.Routes = append(l.Routes, r)
	}
	if _, ok := lstat("/proc/net/if_inet6"); !ok {
		return // a kernel without
	}
	for _, fields := range l.read("/proc/net/if_inet6") {
		if len(fields) > 0 && fields[len(fields)-1] != "lo" {
			l.IPv6 = append(l.IPv6, fields[len(fields)-1]+" "+fields[0])
		}
	}
}

// route is a line of /proc/net/route, which has words in the host's order.
func route(fields []string) (netip.Prefix, error) {
	const dest, mask, all = 1, 7, 8
	if len(fields) < all {
		return netip.Prefix{}, fmt.Errorf("not a route: %q", fields)
	}
	to, err1 := strconv.ParseUint(fields[dest], 16, 32)
	of, err2 := strconv.ParseUint(fields[mask], 16, 32)
	addr := netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, uint32(to))))
	return netip.PrefixFrom(addr, bits.OnesCount32(uint32(of))), errors.Join(err1, err2)
}

func (l lookout) resolvers() {
	for _, fields := range l.read("/etc/resolv.conf") {
		if len(fields) > 1 && fields[0] == "nameserver" {
			l.Resolvers = append(l.Resolvers, fields[1])
		}
	}
}

// usual are the nodes that every container has (oci's default specification).
var usual = []string{"console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"}

func (l lookout) devices() {
	entries, err := os.ReadDir("/dev")
	if err != nil {
		l.Errors = append(l.Errors, err.Error())
	}
	for _, e := range entries {
		if e.Type()&os.ModeDevice != 0 && !slices.Contains(usual, e.Name()) {
			l.Devices = append(l.Devices, path.Join("/dev", e.Name()))
		}
	}
}
