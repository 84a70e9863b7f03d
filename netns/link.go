package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// listed repeats a dump that the kernel interrupted because what it lists has
// changed: bottles come and go at the same time.
func listed[T any](list func() ([]T, error)) (all []T, err error) {
	const attempts = 20
	for range attempts {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

func linkGone(err error) bool {
	var gone netlink.LinkNotFoundError
	return errors.As(err, &gone)
}

// hostLink is the host's end of the egress link, nil without one. Its name is
// ptp's choice, so it is found by the route that ptp made to the bottle's
// address, which host-local has on file. An ADD killed before it made the route
// leaves a link that cannot be told from others; it goes with its namespace a
// few milliseconds after the last holder.
func (r Record) hostLink() (netlink.Link, error) {
	given, err := r.reserved()
	if err != nil {
		return nil, err
	}
	for _, addr := range given {
		link, err := routedTo(addr)
		if link != nil || err != nil {
			return link, err
		}
	}
	return nil, nil
}

func routedTo(addr netip.Addr) (netlink.Link, error) {
	to := &netlink.Route{Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}}
	routes, err := listed(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, to, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes to %s: %w", addr, err)
	}
	for _, route := range routes {
		link, err := netlink.LinkByIndex(route.LinkIndex)
		if linkGone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("link of the route to %s: %w", addr, err)
		}
		if link.Type() == "veth" {
			return link, nil
		}
	}
	return nil, nil
}

// linkTime is what the kernel usually takes to drop the links of a namespace
// that nobody holds any more, and twice that. With many connections it takes
// several hundred milliseconds.
const linkTime = 20 * time.Millisecond

// awaitGone waits for a link to go with its namespace, which is quicker than to
// delete it, and deletes it when that takes long or something still holds the
// namespace: the bottle has ended in any case.
func awaitGone(ctx context.Context, link netlink.Link) error {
	if link == nil {
		return nil
	}
	name := link.Attrs().Name
	for deadline := time.Now().Add(linkTime); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		now, err := netlink.LinkByIndex(link.Attrs().Index)
		if linkGone(err) || err == nil && now.Attrs().Name != name {
			return nil
		}
	}
	return deleteLink(name)
}

// deleteLink acts on the calling thread's namespace.
func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err == nil || linkGone(err) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("delete link %s: %w", name, err)
}

// deleteLinks leaves loopback.
func deleteLinks() error {
	links, err := listed(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if l.Type() == "veth" {
			errs = append(errs, deleteLink(l.Attrs().Name))
		}
	}
	return errors.Join(errs...)
}

// linkHolds says whether a link of the calling thread's namespace has one of
// the addresses.
func linkHolds(name string, given []netip.Addr) (bool, error) {
	link, err := netlink.LinkByName(name)
	if linkGone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find link %s: %w", name, err)
	}
	held, err := listed(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, fmt.Errorf("addresses of link %s: %w", name, err)
	}
	return slices.ContainsFunc(held, func(a netlink.Addr) bool { return slices.Contains(given, addrOf(a.IP)) }), nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
