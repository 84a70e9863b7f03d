package world

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Arrival is a connection or datagram that reached a server. A connection
// without a byte counts.
type Arrival struct {
	// Server is its place and service: internet/http, internet/https,
	// internet/tcp, internet/udp, internet/dns, host/tcp, host/udp, lan/http,
	// lan/tcp; metadata/... for what came to the metadata address.
	Server string
	Local  netip.AddrPort
	Remote netip.AddrPort
	Time   time.Time
	// First are the first bytes, at most 256.
	First []byte
	// Names are the server name of TLS, the hosts of requests, or the name asked for.
	Names []string
	// Headers are those of each HTTP request.
	Headers []http.Header
}

const firstBytes = 256

// ledger records arrivals.
type ledger struct {
	mu  sync.Mutex
	all []*entry
}

// entry is an arrival that more may become known of.
type entry struct {
	ledger *ledger
	Arrival
}

// Arrivals returns what reached the servers of that name, or of all below it:
// "internet", "internet/http"; all for an empty one.
func (w *World) Arrivals(server string) []Arrival {
	w.arrivals.mu.Lock()
	defer w.arrivals.mu.Unlock()
	var found []Arrival
	for _, e := range w.arrivals.all {
		if server == "" || e.Server == server || strings.HasPrefix(e.Server, server+"/") {
			a := e.Arrival
			a.First, a.Names, a.Headers = slices.Clone(a.First), slices.Clone(a.Names), slices.Clone(a.Headers)
			found = append(found, a)
		}
	}
	return found
}

// Queries returns the names that were asked of the Internet's resolver.
func (w *World) Queries() []string {
	var names []string
	for _, a := range w.Arrivals(AtInternet + "/dns") {
		names = append(names, a.Names...)
	}
	return names
}

func (l *ledger) add(server string, local, remote net.Addr) *entry {
	e := &entry{ledger: l, Arrival: Arrival{Server: server, Local: addrPort(local), Remote: addrPort(remote), Time: time.Now()}}
	if e.Local.Addr().String() == Metadata {
		_, service, _ := strings.Cut(server, "/")
		e.Server = "metadata/" + service
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
	return e
}

func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
}

func (e *entry) bytes(b []byte) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.First = append(e.First, b[:min(len(b), firstBytes-len(e.First))]...)
}

func (e *entry) name(s string) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.Names = append(e.Names, s)
}

func (e *entry) request(r *http.Request) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.Names = append(e.Names, r.Host)
	e.Headers = append(e.Headers, r.Header.Clone())
}

func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
