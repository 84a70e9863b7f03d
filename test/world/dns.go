package world

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is what the Internet's resolver knows.
type zone struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
}

// fill sets the names every world has. evil.test shares its address with
// allowed.test, private.test and meta.test lead where nobody may go.
func (z *zone) fill(more map[string]netip.Addr) {
	names := map[string]netip.Addr{
		"allowed.test": netip.MustParseAddr(Allowed), "denied.test": netip.MustParseAddr(Denied),
		"evil.test": netip.MustParseAddr(Allowed), "private.test": netip.MustParseAddr(Neighbour),
		"meta.test": netip.MustParseAddr(Metadata), "six.test": netip.MustParseAddr(Internet6),
	}
	maps.Copy(names, more)
	for name, addr := range names {
		z.set(name, []netip.Addr{addr})
	}
}

func (z *zone) set(name string, addrs []netip.Addr) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.addrs == nil {
		z.addrs = map[string][]netip.Addr{}
	}
	if len(addrs) == 0 {
		delete(z.addrs, canonical(name))
		return
	}
	z.addrs[canonical(name)] = slices.Clone(addrs)
}

func (z *zone) get(name string) ([]netip.Addr, bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	addrs, ok := z.addrs[canonical(name)]
	return addrs, ok
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (w *World) serveDNS(c net.PacketConn, label string) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		e := w.arrivals.add(label, c.LocalAddr(), from)
		e.bytes(buf[:n])
		var query dnsmessage.Message
		if query.Unpack(buf[:n]) != nil || len(query.Questions) != 1 {
			continue // counted, and not worth an answer
		}
		e.name(canonical(query.Questions[0].Name.String()))
		if reply, err := w.zone.reply(query); err == nil {
			_, _ = c.WriteTo(reply, from) // to a source that may be made up
		}
	}
}

func (z *zone) reply(query dnsmessage.Message) ([]byte, error) {
	question := query.Questions[0]
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: query.ID, Response: true, Authoritative: true,
			RecursionDesired: query.RecursionDesired, RecursionAvailable: true,
		},
		Questions: query.Questions,
	}
	addrs, known := z.get(question.Name.String())
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		if body := record(question.Type, a); body != nil {
			head := dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: dnsmessage.ClassINET}
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: head, Body: body})
		}
	}
	return reply.Pack()
}

func record(kind dnsmessage.Type, a netip.Addr) dnsmessage.ResourceBody {
	switch {
	case kind == dnsmessage.TypeA && a.Is4():
		return &dnsmessage.AResource{A: a.As4()}
	case kind == dnsmessage.TypeAAAA && a.Is6():
		return &dnsmessage.AAAAResource{AAAA: a.As16()}
	}
	return nil
}
