package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	lookupTime = 10 * time.Second
	dialTime   = 10 * time.Second
	// A name may have very many addresses, each with its time.
	maxAddresses = 3
)

// resolver is the part of net.Resolver that is used.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// reach connects to a target that was decided on. The address that is checked
// is the one that is dialled: a name that answers otherwise the second time
// gains nothing.
func (e *engine) reach(ctx context.Context, t target) (net.Conn, error) {
	addrs, err := e.addresses(ctx, t)
	if err != nil {
		return nil, err
	}
	return dial(ctx, addrs, t.port)
}

// addresses looks a name up and keeps what may be reached.
func (e *engine) addresses(ctx context.Context, t target) ([]netip.Addr, error) {
	found, err := e.lookup(ctx, t.host)
	if err != nil {
		return nil, err
	}
	inForce := e.policy.Load()
	var good []netip.Addr
	refused := errors.New("it has no IPv4 address")
	for _, a := range found {
		// net.Resolver writes A records like this; AAAA is not asked for.
		a = a.Unmap()
		if err := inForce.Permit(a); err != nil {
			refused = err
			continue
		}
		good = append(good, a)
	}
	if len(good) == 0 {
		return nil, denied{fmt.Sprintf("%s has no address that may be reached: %v", t.host, refused)}
	}
	return good, nil
}

func (e *engine) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if literal, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{literal}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	name := host
	if strings.Contains(host, ".") {
		name += "." // else the search domains of resolv.conf are tried too
	}
	found, err := e.resolve.LookupNetIP(ctx, "ip4", name)
	if err != nil {
		return nil, &lookupError{host, err}
	}
	return found, nil
}

// lookupError tells the agent that a name was not found, and not the host's
// resolvers, which only the log names.
type lookupError struct {
	host string
	err  error
}

func (l *lookupError) Error() string {
	why := "failed"
	var dns *net.DNSError
	switch {
	case errors.As(l.err, &dns) && dns.IsNotFound:
		why = "no such host"
	case l.Timeout():
		why = "timed out"
	}
	return "look up " + l.host + ": " + why
}

func (l *lookupError) Unwrap() error { return l.err }

// Timeout and Temporary make it a net.Error.
func (l *lookupError) Timeout() bool {
	var timeout net.Error
	return errors.As(l.err, &timeout) && timeout.Timeout()
}

// Temporary is part of net.Error and means nothing here.
func (l *lookupError) Temporary() bool { return false }

// detail is an error as the operator reads it.
func detail(err error) string {
	var l *lookupError
	if errors.As(err, &l) {
		return l.err.Error()
	}
	return err.Error()
}

// dial connects to the first of some addresses that answers.
func dial(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime}
	var last error
	for _, a := range addrs[:min(len(addrs), maxAddresses)] {
		conn, err := d.DialContext(ctx, "tcp4", netip.AddrPortFrom(a, port).String())
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// address is the far end of a connection.
func address(c net.Conn) netip.AddrPort {
	a, _ := netip.ParseAddrPort(c.RemoteAddr().String()) // zero is never permitted
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
