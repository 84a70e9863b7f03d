package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/verify/inside"
)

// attempt is one that waits for its answer.
type attempt struct {
	inside.Attempt
	fd     int
	unmade error // why there is no socket for it
}

// attempts are made all at once, as most of it is waiting. It fails where one was
// not made for want of room, from which nothing follows.
func attempts(e inside.Errand, patience time.Duration) (all []inside.Attempt, err error) {
	var made []*attempt
	for _, to := range e.Targets {
		for _, protocol := range []string{"tcp", "udp", "icmp"} {
			a := newAttempt(to, protocol, e.Payload)
			if slices.ContainsFunc(full, func(e error) bool { return errors.Is(a.unmade, e) }) {
				return nil, fmt.Errorf("%s to %s was not tried: %w", protocol, to, a.unmade) // the process ends, and closes the others
			}
			made = append(made, a)
		}
	}
	deadline := time.Now().Add(patience)
	for pending(made) && await(made, deadline) {
	}
	for _, a := range made {
		if a.fd >= 0 {
			a.end("no answer")
		}
		all = append(all, a.Attempt)
	}
	return all, nil
}

// full are errors that say nothing of what an agent may do.
var full = []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM}

func newAttempt(to netip.AddrPort, protocol string, payload []byte) *attempt {
	a := &attempt{Attempt: inside.Attempt{To: to, Protocol: protocol}, fd: -1}
	fd, err := attemptSocket(to.Addr(), protocol)
	if err != nil {
		a.unmade, a.Error = err, err.Error()
		return a
	}
	a.fd = fd
	err = unix.Connect(fd, sockaddr(to))
	if err == nil && protocol == "udp" {
		_, err = unix.Write(fd, payload)
	}
	if err == nil && protocol == "icmp" {
		_, err = unix.Write(fd, echo(to.Addr()))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		a.end(err.Error())
	}
	return a
}

func attemptSocket(to netip.Addr, protocol string) (int, error) {
	domain, icmp := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Is6() {
		domain, icmp = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	switch protocol {
	case "tcp":
		return unix.Socket(domain, unix.SOCK_STREAM|flags, 0)
	case "udp":
		return unix.Socket(domain, unix.SOCK_DGRAM|flags, 0)
	default: // without privileges where the kernel has that
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|flags, icmp)
		if err != nil {
			return unix.Socket(domain, unix.SOCK_RAW|flags, icmp)
		}
		return fd, nil
	}
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
}

// echo is a request, with the checksum that raw sockets of version 4 leave to
// their user.
func echo(to netip.Addr) []byte {
	if to.Is6() {
		return []byte{128, 0, 0, 0, 0, 0, 0, 0}
	}
	return []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
}

func pending(all []*attempt) bool {
	for _, a := range all {
		if a.fd >= 0 {
			return true
		}
	}
	return false
}

// await is false when the time is over.
func await(all []*attempt, deadline time.Time) bool {
	left := time.Until(deadline).Milliseconds()
	if left <= 0 {
		return false
	}
	var fds []unix.PollFd
	var waiting []*attempt
	for _, a := range all {
		if a.fd >= 0 {
			events := int16(unix.POLLIN)
			if a.Protocol == "tcp" {
				events = unix.POLLOUT
			}
			fds = append(fds, unix.PollFd{Fd: int32(a.fd), Events: events})
			waiting = append(waiting, a)
		}
	}
	if _, err := unix.Poll(fds, int(left)); err != nil {
		return errors.Is(err, unix.EINTR)
	}
	for i, p := range fds {
		if p.Revents != 0 {
			waiting[i].answered()
		}
	}
	return true
}

// answered: who refuses was reached as well.
func (a *attempt) answered() {
	errno, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	a.Reached = err == nil || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET)
	text := ""
	if err != nil {
		text = err.Error()
	}
	a.end(text)
}

func (a *attempt) end(why string) {
	_ = unix.Close(a.fd)
	a.fd, a.Error = -1, why
}
