// Package links reads and deletes network links, in the namespace of the
// calling thread: what github.com/vishvananda/netlink leaves to its user.
package links

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

// Listed repeats a dump that the kernel interrupted because what it lists has
// changed: bottles come and go at the same time.
func Listed[T any](list func() ([]T, error)) (all []T, err error) {
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

// RoutedTo is the veth that a route to one address leads to, nil without one.
func RoutedTo(addr netip.Addr) (netlink.Link, error) {
	to := &netlink.Route{Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}}
	routes, err := Listed(func() ([]netlink.Route, error) {
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

// AwaitGone waits for a link to go with its namespace, which is quicker than to
// delete it, and deletes it when that takes long or something still holds the
// namespace: the bottle has ended in any case.
func AwaitGone(ctx context.Context, link netlink.Link) error {
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
	return Delete(name)
}

// Delete takes one that is not there for deleted.
func Delete(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err == nil || linkGone(err) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("delete link %s: %w", name, err)
}

// DeleteAll deletes every veth, and leaves loopback.
func DeleteAll() error {
	links, err := Listed(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if l.Type() == "veth" {
			errs = append(errs, Delete(l.Attrs().Name))
		}
	}
	return errors.Join(errs...)
}

// Holds says whether a link is there and has one of the addresses.
func Holds(name string, given []netip.Addr) (bool, error) {
	link, err := netlink.LinkByName(name)
	if linkGone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find link %s: %w", name, err)
	}
	held, err := Listed(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, fmt.Errorf("addresses of link %s: %w", name, err)
	}
	return slices.ContainsFunc(held, func(a netlink.Addr) bool { return slices.Contains(given, AddrOf(a.IP)) }), nil
}

// AddrOf is an address without its mapping to version 6.
func AddrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// Names are those of all links, by index.
func Names() (map[int]string, error) {
	links, err := Listed(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

// Addrs are the addresses of a link, of both versions, with their masks and
// sorted.
func Addrs(link netlink.Link) ([]string, error) {
	list, err := Listed(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("addresses of link %s: %w", link.Attrs().Name, err)
	}
	var held []string
	for _, a := range list {
		held = append(held, a.IPNet.String())
	}
	slices.Sort(held)
	return held, nil
}
