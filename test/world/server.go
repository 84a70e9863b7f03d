package world

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// service is one listener of each place: what it is called, where it listens,
// and who serves it.
type service struct {
	place, name string
	port        int
	addrs       []string // one socket each; empty means every address in one
	stream      func(net.Listener) error
	packet      func(net.PacketConn, string) error
}

// internetAddrs get a socket each where answers have to come from the address
// that was asked.
var internetAddrs = []string{Gateway, Allowed, Denied, Resolver, Metadata, Gateway6, Internet6}

func (w *World) services() []service {
	return []service{
		{place: AtInternet, name: "http", port: 80, stream: w.serveHTTP},
		{place: AtInternet, name: "https", port: 443, stream: w.serveHTTPS},
		{place: AtInternet, name: "tcp", port: 22, stream: echo},
		{place: AtInternet, name: "tcp", port: 53, stream: echo},
		{place: AtInternet, name: "tcp", port: 8443, stream: echo},
		{place: AtInternet, name: "dns", port: 53, addrs: internetAddrs, packet: w.serveDNS},
		{place: AtInternet, name: "udp", port: HostUDPPort, addrs: internetAddrs, packet: w.echoPackets},
		{place: AtHost, name: "tcp", port: HostTCPPort, stream: echo},
		{place: AtHost, name: "udp", port: HostUDPPort, packet: w.echoPackets},
		{place: AtLAN, name: "http", port: 80, stream: w.serveHTTP},
		{place: AtLAN, name: "tcp", port: 22, stream: echo},
	}
}

// serve starts every server. Their sockets are open when it returns.
func (w *World) serve(ctx context.Context) error {
	if err := w.certify(); err != nil {
		return err
	}
	for _, s := range w.services() {
		addrs := s.addrs
		if len(addrs) == 0 {
			addrs = []string{"::"}
		}
		for _, a := range addrs {
			if err := w.open(ctx, s, net.JoinHostPort(a, strconv.Itoa(s.port))); err != nil {
				return fmt.Errorf("serve %s/%s: %w", s.place, s.name, err)
			}
		}
	}
	return nil
}

func (w *World) open(ctx context.Context, s service, addr string) error {
	return w.spaces[s.place].do(func() error {
		var config net.ListenConfig
		label := s.place + "/" + s.name
		if s.packet != nil {
			conn, err := config.ListenPacket(ctx, "udp", addr)
			if err != nil {
				return err
			}
			w.run(conn, func() error { return s.packet(conn, label) })
			return nil
		}
		l, err := config.Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		counted := &listener{Listener: l, ledger: &w.arrivals, label: label}
		w.run(l, func() error { return s.stream(counted) })
		return nil
	})
}

// run serves until Close, which returns the server's error.
func (w *World) run(socket io.Closer, f func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	w.onClose(func() error {
		err := socket.Close()
		if served := <-done; !errors.Is(served, net.ErrClosed) {
			err = errors.Join(err, served)
		}
		return err
	})
}

// listener counts what it accepts.
type listener struct {
	net.Listener
	ledger *ledger
	label  string
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, entry: l.ledger.add(l.label, c.LocalAddr(), c.RemoteAddr())}, nil
}

// conn keeps the first bytes that arrive.
type conn struct {
	net.Conn
	entry *entry
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.entry.bytes(b[:n])
	return n, err
}

func echo(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(c, c) // the client may do as it likes
			_ = c.Close()
		}()
	}
}

func (w *World) echoPackets(c net.PacketConn, label string) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		w.arrivals.add(label, c.LocalAddr(), from).bytes(buf[:n])
		_, _ = c.WriteTo(buf[:n], from) // to a source that may be made up
	}
}

type entryKey struct{}

func (w *World) serveHTTP(l net.Listener) error {
	return w.httpServer().Serve(l)
}

func (w *World) serveHTTPS(l net.Listener) error {
	server := w.httpServer()
	server.TLSConfig = w.tls
	return server.ServeTLS(l, "", "")
}

// usual are what every web server here answers.
func usual() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/", answer)
	mux.HandleFunc("/bytes/{n}", answerBytes)
	return mux
}

// Handle lets h answer for a pattern as http.ServeMux has them, with a host.
func (w *World) Handle(pattern string, h http.Handler) { w.web.Handle(pattern, h) }

func (w *World) httpServer() *http.Server {
	return &http.Server{ReadHeaderTimeout: time.Minute, Handler: w.web, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		if t, ok := c.(*tls.Conn); ok {
			c = t.NetConn()
		}
		return context.WithValue(ctx, entryKey{}, c.(*conn).entry)
	}, ErrorLog: silent}
}

// answer says where the request arrived.
func answer(rw http.ResponseWriter, r *http.Request) {
	e := r.Context().Value(entryKey{}).(*entry)
	e.request(r)
	_, _ = fmt.Fprintf(rw, "world: %s at %s for %s %s\n", e.Server, e.Local, r.Host, r.URL.Path) //nolint:gosec // plain text for tests
}

// answerBytes sends as many bytes as the path says.
func answerBytes(rw http.ResponseWriter, r *http.Request) {
	r.Context().Value(entryKey{}).(*entry).request(r)
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(rw, zeros{}, n)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// SetName changes what the resolver answers for a name; no address at all makes
// it unknown.
func (w *World) SetName(name string, addrs ...netip.Addr) { w.zone.set(name, addrs) }
