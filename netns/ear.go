package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Ear listens for TCP and UDP at an address that an agent must not get to, on
// the egress side or on the host, and counts what arrives.
type Ear struct {
	At  netip.AddrPort
	in  func(func() error) error // runs in its namespace
	tcp net.Listener
	udp net.PacketConn

	mu      sync.Mutex
	own     int            // connections of its own test
	foreign int64          // all others, and datagrams that are not in heard
	heard   map[string]int // datagrams
}

// earTest is what the test says by UDP. Its TCP comes from the ear's own
// address.
const earTest = "carboy verify: control"

// Listen opens an ear at each of the addresses, of which those that the proxy's
// namespace has are there. The caller closes them, also after an error.
func (n *Network) Listen(ctx context.Context, s Surroundings) (ears []*Ear, err error) {
	egress := func(f func() error) error { return inNamespace(n.egress, f) }
	host := func(f func() error) error { return f() }
	open := func(addrs []netip.Addr, in func(func() error) error) {
		for _, a := range addrs {
			ear, earErr := newEar(ctx, a, in)
			if earErr == nil {
				ears = append(ears, ear)
			}
			err = errors.Join(err, earErr)
		}
	}
	open(s.Own, egress)
	open(s.HostEnd, host)
	return ears, err
}

func newEar(ctx context.Context, addr netip.Addr, in func(func() error) error) (*Ear, error) {
	e := &Ear{in: in, heard: map[string]int{}}
	err := in(func() (err error) {
		for range 5 { // the port that is free for TCP may be taken for UDP
			if err = e.open(ctx, addr); !errors.Is(err, unix.EADDRINUSE) {
				break
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", addr, err)
	}
	go e.accept()
	go e.receive()
	return e, nil
}

// open makes both sockets on the calling thread, as each address is literal.
func (e *Ear) open(ctx context.Context, addr netip.Addr) (err error) {
	var c net.ListenConfig
	if e.tcp, err = c.Listen(ctx, "tcp", netip.AddrPortFrom(addr, 0).String()); err != nil {
		return err
	}
	e.At = netip.AddrPortFrom(addr, uint16(e.tcp.Addr().(*net.TCPAddr).Port))
	if e.udp, err = c.ListenPacket(ctx, "udp", e.At.String()); err != nil {
		return errors.Join(err, e.tcp.Close())
	}
	return nil
}

func (e *Ear) accept() {
	for {
		conn, err := e.tcp.Accept()
		if err != nil {
			return // closed
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		_ = conn.Close()
		e.mu.Lock()
		if from == e.At.Addr() {
			e.own++
		} else {
			e.foreign++
		}
		e.mu.Unlock()
	}
}

func (e *Ear) receive() {
	const most = 1000 // of different ones: who sends more counts as a connection does
	buf := make([]byte, 256)
	for {
		n, _, err := e.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		e.mu.Lock()
		switch {
		case err != nil:
		case len(e.heard) < most:
			e.heard[string(buf[:n])]++
		default:
			e.foreign++
		}
		e.mu.Unlock()
	}
}

// Arrived is how many connections came from elsewhere, and datagrams with a
// payload, or too many to tell.
func (e *Ear) Arrived(payload []byte) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.foreign + int64(e.heard[string(payload)])
}

func (e *Ear) hears(payload []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[string(payload)] > 0
}

func (e *Ear) tested() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.own > 0 && e.heard[earTest] > 0
}

// Test proves that the ear hears, from where it is.
func (e *Ear) Test(ctx context.Context) error {
	err := e.in(func() error {
		for _, network := range []string{"tcp", "udp"} {
			d := net.Dialer{LocalAddr: localAddr(network, e.At.Addr())}
			conn, err := d.DialContext(ctx, network, e.At.String())
			if err != nil {
				return err
			}
			if _, err := conn.Write([]byte(earTest)); err != nil && network == "udp" {
				return errors.Join(err, conn.Close())
			}
			_ = conn.Close() // it has arrived, or is waited for below
		}
		return nil
	})
	for err == nil && !e.tested() {
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	if err != nil {
		return fmt.Errorf("control at %s: %w", e.At, err)
	}
	return nil
}

func localAddr(network string, a netip.Addr) net.Addr {
	if network == "tcp" {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
}

// Close stops listening.
func (e *Ear) Close() error { return errors.Join(e.tcp.Close(), e.udp.Close()) }
