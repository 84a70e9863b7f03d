package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"carboy/netns/links"
)

// Surroundings are addresses that an agent must not get to.
type Surroundings struct {
	Own      []netip.Addr // of the proxy's namespace
	HostEnd  []netip.Addr // of the host, where the proxy's packets go first
	Host     []netip.Addr // all others of the host
	Gateways []netip.Addr // the host's, and the proxy's where that is not the host
}

// Surroundings reads them.
func (n *Network) Surroundings() (s Surroundings, err error) {
	var first []netip.Addr
	err = n.reading("egress", n.egress, func() (err error) {
		if s.Own, err = localAddrs(); err != nil {
			return err
		}
		first, err = gateways()
		return err
	})()
	if err != nil {
		return s, err
	}
	if s.Host, err = localAddrs(); err != nil {
		return s, fmt.Errorf("addresses of the host: %w", err)
	}
	if s.Gateways, err = gateways(); err != nil {
		return s, err
	}
	for _, a := range first {
		i := slices.Index(s.Host, a)
		if i < 0 { // an operator's network leads elsewhere
			s.Gateways = each(append(s.Gateways, a))
			continue
		}
		s.HostEnd, s.Host = append(s.HostEnd, a), slices.Delete(s.Host, i, i+1)
	}
	return s, nil
}

// localAddrs are those of the calling thread's namespace but loopback's, sorted
// and each once.
func localAddrs() ([]netip.Addr, error) {
	list, err := links.Listed(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []netip.Addr
	for _, a := range list {
		if addr := links.AddrOf(a.IP); !addr.IsLoopback() {
			all = append(all, addr)
		}
	}
	return each(all), nil
}

func gateways() ([]netip.Addr, error) {
	routes, err := links.Listed(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var all []netip.Addr
	for _, r := range routes {
		if gateway := links.AddrOf(r.Gw); gateway.IsValid() {
			all = append(all, gateway)
		}
	}
	return each(all), nil
}

func each(all []netip.Addr) []netip.Addr {
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// Stranger is an address of the range that no bottle has, the last of hosts,
// for want of another bottle's. There is none where the egress network is an
// operator's.
func (n *Network) Stranger(s Surroundings) []netip.Addr {
	if !n.record.Own {
		return nil
	}
	used, err := n.record.shared().Range()
	if err != nil {
		return nil // it is one more target, and not needed
	}
	last := used.Masked().Addr().As4()
	hosts := ^uint32(0) >> used.Bits()
	binary.BigEndian.PutUint32(last[:], binary.BigEndian.Uint32(last[:])|hosts-1)
	stranger := netip.AddrFrom4(last)
	if slices.Contains(s.Own, stranger) || slices.Contains(s.HostEnd, stranger) {
		return nil // of a range that is full
	}
	return []netip.Addr{stranger}
}
