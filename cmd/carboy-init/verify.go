package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/verify/inside"
)

// Bounds of a probe: of its errand in bytes, of all attempts together, and of
// an answer of the proxy's, which may have to look a name up.
const (
	largestErrand = 1 << 20
	attemptTime   = time.Second
	proxyTime     = 3 * time.Second
)

// verify tries what its errand says, and looks around. It needs nothing of the
// image, and changes nothing.
func verify(in io.Reader, out io.Writer) error {
	if err := hide(); err != nil { // the agent runs as the same user
		return err
	}
	var e inside.Errand
	if err := json.NewDecoder(io.LimitReader(in, largestErrand)).Decode(&e); err != nil {
		return err
	}
	var a, found inside.Account
	var beside sync.WaitGroup
	beside.Go(func() { lookout{&found}.sockets() })
	beside.Go(func() { a.Denied = tunnel(e.Proxy, e.Denied) })
	if e.Allowed != "" {
		beside.Go(func() { a.Allowed = tunnel(e.Proxy, e.Allowed) })
	}
	lookout{&a}.around()
	a.Raw = rawSockets()
	made, err := attempts(e, attemptTime)
	beside.Wait()
	if err != nil {
		return err
	}
	a.Attempts = made
	a.HostSockets, a.Errors = found.HostSockets, append(a.Errors, found.Errors...)
	return json.NewEncoder(out).Encode(a)
}

// tunnel asks the proxy for one and closes it at once.
func tunnel(proxy netip.AddrPort, to string) (t inside.Tunnel) {
	conn, err := dial(proxy, proxyTime)
	if err == nil {
		_, err = open(conn, to)
		_ = conn.Close()
	}
	if err == nil {
		return inside.Tunnel{Open: true}
	}
	var refused *refusal
	return inside.Tunnel{Said: errors.As(err, &refused), Error: err.Error()}
}

// rawSockets are those that could send what the kernel would not.
func rawSockets() (all []inside.Outcome) {
	for _, s := range []struct {
		what                 string
		domain, kind, number int
	}{
		{"packet socket", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"raw socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"raw IPv6 socket", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
	} {
		o := inside.Outcome{What: s.what}
		fd, err := unix.Socket(s.domain, s.kind|unix.SOCK_CLOEXEC, s.number)
		if err != nil {
			o.Error = err.Error()
		} else {
			_ = unix.Close(fd)
		}
		all = append(all, o)
	}
	return all
}

// lstat follows no link that an image made.
func lstat(path string) (st unix.Stat_t, ok bool) {
	return st, unix.Lstat(path, &st) == nil
}

func isSocket(path string) bool {
	st, ok := lstat(path)
	return ok && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

// canWrite opens for writing and writes nothing.
func canWrite(path string) bool {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}
