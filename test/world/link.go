package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// wire is a pair of links from the host to one of its surroundings.
type wire struct {
	here, there   string
	hereAddrs     []string
	thereAddrs    []string
	thereLoopback []string
}

var wires = map[string]wire{
	AtInternet: {
		here: "eth0", there: "inet0",
		hereAddrs:     []string{HostAddr + "/24", HostAddr6 + "/64"},
		thereAddrs:    []string{Gateway + "/24", Gateway6 + "/64"},
		thereLoopback: []string{Allowed + "/32", Denied + "/32", Resolver + "/32", Metadata + "/32", Internet6 + "/128"},
	},
	AtLAN: {
		here: "lan0", there: "nb0",
		hereAddrs:  []string{HostLAN + "/24"},
		thereAddrs: []string{Neighbour + "/24"},
	},
}

// connect builds the links, addresses and routes. The Internet has no route
// back to private addresses: without NAT there is no answer.
func (w *World) connect(ctx context.Context, forward bool) error {
	host, err := openNamespace()
	if err != nil {
		return err
	}
	w.onClose(host.file.Close)
	w.spaces[AtHost] = host
	value := "0"
	if forward {
		value = "1"
	}
	if err := host.do(func() error { return setUp(value) }); err != nil {
		return err
	}
	for name, wire := range wires {
		if err := w.plug(ctx, name, wire); err != nil {
			return fmt.Errorf("connect %s: %w", name, err)
		}
	}
	h, err := netlink.NewHandleAt(host.handle(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := addAddrs(h, "lo", HostExtra+"/32"); err != nil {
		return err
	}
	w.onClose(func() error { return delAddr("lo", HostExtra+"/32") })
	for _, gateway := range []string{Gateway, Gateway6} {
		if err := h.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}); err != nil {
			return fmt.Errorf("default route by %s: %w", gateway, err)
		}
	}
	return nil
}

func (w *World) plug(ctx context.Context, name string, wire wire) error {
	there, err := newNamespace()
	if err != nil {
		return err
	}
	w.onClose(there.file.Close)
	w.spaces[name] = there
	// No filter of its own: what leaks is to arrive.
	if err := there.do(func() error { return setUp("0") }); err != nil {
		return err
	}
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: wire.here}, PeerName: wire.there, PeerNamespace: netlink.NsFd(there.file.Fd()),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("link %s: %w", wire.here, err)
	}
	w.onClose(func() error { return netlink.LinkDel(pair) })
	near, err := netlink.NewHandleAt(w.spaces[AtHost].handle(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer near.Close()
	far, err := netlink.NewHandleAt(there.handle(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer far.Close()
	for _, end := range []struct {
		handle *netlink.Handle
		name   string
	}{{near, wire.here}, {far, wire.there}, {far, "lo"}} {
		if err := linkUp(end.handle, end.name); err != nil {
			return err
		}
	}
	if err := errors.Join(addAddrs(near, wire.here, wire.hereAddrs...), addAddrs(far, wire.there, wire.thereAddrs...),
		addAddrs(far, "lo", wire.thereLoopback...)); err != nil {
		return err
	}
	return errors.Join(waitReady(ctx, near, wire.here), waitReady(ctx, far, wire.there), waitReady(ctx, far, "lo"))
}

// waitReady waits until a link sends and its addresses of version 6 are routed:
// the kernel does both behind the back of who asked for it, and drops until
// then what is sent.
func waitReady(ctx context.Context, h *netlink.Handle, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		missing, err := notReady(h, name)
		if err != nil || missing == "" {
			return err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("link %s: wait for %s: %w", name, missing, err)
		}
	}
}

func notReady(h *netlink.Handle, name string) (missing string, err error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return "", err
	}
	loopback := link.Attrs().Flags&net.FlagLoopback != 0
	if !loopback && link.Attrs().OperState != netlink.OperUp {
		return "carrier", nil
	}
	addrs, err := h.AddrList(link, unix.AF_INET6)
	if err != nil {
		return "", err
	}
	if !loopback && !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() }) {
		return "its link-local address", nil
	}
	for _, a := range addrs {
		filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: netlink.NewIPNet(a.IP)}
		routes, err := h.RouteListFiltered(unix.AF_INET6, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		if err != nil {
			return "", err
		}
		if len(routes) == 0 {
			return "a route to " + a.IP.String(), nil
		}
	}
	return "", nil
}

// setUp makes a namespace plain, whatever it has inherited from the machine,
// and its addresses usable without the second's wait for duplicates.
func setUp(forward string) error {
	for _, s := range [][2]string{
		{"ipv4/ip_forward", forward}, {"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/default/rp_filter", "0"},
		{"ipv6/conf/all/disable_ipv6", "0"}, {"ipv6/conf/default/disable_ipv6", "0"},
		{"ipv6/conf/all/accept_dad", "0"}, {"ipv6/conf/default/accept_dad", "0"},
	} {
		if err := setNet(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

func linkUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("link %s up: %w", name, err)
	}
	return nil
}

func addAddrs(h *netlink.Handle, name string, addrs ...string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s on %s: %w", a, name, err)
		}
	}
	return nil
}

func delAddr(name, a string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(a)
	if err != nil {
		return err
	}
	return netlink.AddrDel(link, addr)
}

func (n *namespace) handle() netns.NsHandle { return netns.NsHandle(n.file.Fd()) }

func (n *namespace) linkName(index int) (string, error) {
	h, err := netlink.NewHandleAt(n.handle(), unix.NETLINK_ROUTE)
	if err != nil {
		return "", err
	}
	defer h.Close()
	link, err := h.LinkByIndex(index)
	if err != nil {
		return "", err
	}
	return link.Attrs().Name, nil
}
