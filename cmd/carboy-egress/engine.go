package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"carboy/runtime/proxy/policy"
)

const dialTime = 10 * time.Second

// resolver is the part of net.Resolver that is used.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// engine decides and logs; the handlers carry bytes.
type engine struct {
	policy  atomic.Pointer[policy.Policy]
	resolve resolver
	idle    time.Duration

	logMu sync.Mutex
	log   io.Writer

	tunnelMu sync.Mutex
	tunnels  map[*tunnel]struct{}
}

func newEngine(p policy.Policy, log io.Writer, idle time.Duration) *engine {
	e := &engine{resolve: &net.Resolver{PreferGo: true}, idle: idle, log: log, tunnels: map[*tunnel]struct{}{}}
	e.policy.Store(&p)
	return e
}

// reload puts a policy in force and ends tunnels that it does not allow.
func (e *engine) reload(p policy.Policy) {
	e.policy.Store(&p)
	e.tunnelMu.Lock()
	defer e.tunnelMu.Unlock()
	for t := range e.tunnels {
		if _, ok := p.Rule(t.target.host, t.target.port); !ok {
			t.close()
		}
	}
}

// target is a normalised host and a port.
type target struct {
	host string
	port uint16
}

func (t target) String() string { return net.JoinHostPort(t.host, strconv.Itoa(int(t.port))) }

// parseTarget reads host:port; without one the port is fallback, and zero
// means that there has to be one.
func parseTarget(authority string, fallback uint16) (target, error) {
	host, text, err := net.SplitHostPort(authority)
	if err != nil && fallback != 0 {
		host, text, err = authority, strconv.Itoa(int(fallback)), nil
	}
	if err != nil {
		return target{}, errors.New("not a host and a port")
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return target{}, errors.New("not a port")
	}
	name, err := policy.NormalizeHost(host)
	return target{name, uint16(port)}, err
}

// denied is a refusal by policy, with the reason that the client is told.
type denied struct{ reason string }

func (d denied) Error() string { return d.reason }

// status is the HTTP status for an error on the way to a target.
func status(err error) int {
	var refusal denied
	var timeout net.Error
	switch {
	case errors.As(err, &refusal):
		return http.StatusForbidden
	case errors.As(err, &timeout) && timeout.Timeout():
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadGateway
	}
}

// rule decides by name, before anything is looked up.
func (e *engine) rule(t target) (policy.Pattern, error) {
	r, ok := e.policy.Load().Rule(t.host, t.port)
	if !ok {
		return r, denied{"host is not allowed"}
	}
	return r, nil
}

// addresses looks a name up and keeps what may be reached.
func (e *engine) addresses(ctx context.Context, t target) ([]netip.Addr, error) {
	found := []netip.Addr{}
	if literal, err := netip.ParseAddr(t.host); err == nil {
		found = append(found, literal)
	} else if found, err = e.resolve.LookupNetIP(ctx, "ip4", t.host); err != nil {
		return nil, fmt.Errorf("look up %s: %w", t.host, err)
	}
	var good []netip.Addr
	var refused error
	for _, a := range found {
		if a.Is4In6() && len(a.AsSlice()) == 16 {
			a = a.Unmap() // how the resolver may return an A record
		}
		if err := e.policy.Load().Permit(a); err != nil {
			refused = err
			continue
		}
		good = append(good, a)
	}
	if len(good) == 0 {
		return nil, denied{fmt.Sprintf("%s resolves to no public address: %v", t.host, refused)}
	}
	return good, nil
}

// dial connects to one of the addresses that were checked.
func dial(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime}
	var last error
	for _, a := range addrs {
		conn, err := d.DialContext(ctx, "tcp4", netip.AddrPortFrom(a, port).String())
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// write logs one line.
func (e *engine) write(d policy.Decision) {
	d.Time = time.Now().UTC()
	line, err := json.Marshal(d)
	if err != nil {
		fmt.Fprintln(os.Stderr, "carboy-egress:", err)
		return
	}
	e.logMu.Lock()
	defer e.logMu.Unlock()
	if _, err := e.log.Write(append(line, '\n')); err != nil {
		fmt.Fprintln(os.Stderr, "carboy-egress: log:", err)
	}
}

func (e *engine) deny(d policy.Decision, err error) {
	d.Event, d.Verdict, d.Reason = "decision", "deny", policy.Printable(err.Error())
	var refusal denied
	if !errors.As(err, &refusal) {
		d.Verdict = "error"
	}
	e.write(d)
}
