package netns

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"carboy/netns/links"
	"carboy/netns/nft"
	"carboy/netns/sysctl"
)

// Verify reads back what isolation rests on and names every point that is not
// proved.
func (n *Network) Verify() error {
	var agent netlink.Link
	isolated := inNamespace(n.isolated, func() (err error) {
		agent, err = n.verifyIsolated()
		return err
	})
	egress := inNamespace(n.egress, func() error { return n.verifyEgress(agent) })
	return errors.Join(
		named("isolated namespace", isolated),
		named("egress namespace", egress),
		named("filter in the egress namespace", n.verifyFilter()),
	)
}

func named(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// verifyIsolated runs in the agent's namespace and returns its link.
func (n *Network) verifyIsolated() (netlink.Link, error) {
	link, err := netlink.LinkByName(linkName)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", linkName, err)
	}
	return link, errors.Join(
		verifyLinks(link, nil),
		verifyAddrs("lo", "127.0.0.1/8"),
		verifyAddrs(linkName, AgentAddr.String()+"/30"),
		verifyRoutes(),
		n.verifyPeer(link),
		verifySysctls(),
	)
}

// verifyPeer proves that the link's other end is in the egress namespace: an
// index alone also fits a link of another namespace.
func (n *Network) verifyPeer(link netlink.Link) error {
	id, err := netlink.GetNetNsIdByFd(int(n.egress.Fd()))
	if err != nil {
		return fmt.Errorf("id of the egress namespace: %w", err)
	}
	if id < 0 || link.Attrs().NetNsID != id {
		return fmt.Errorf("link %s ends in namespace %d, the egress namespace is %d", link.Attrs().Name, link.Attrs().NetNsID, id)
	}
	return nil
}

func verifyRoutes() error {
	routes, err := links.Listed(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	var errs []error
	for _, r := range routes {
		if r.Dst == nil || !internalLink.Contains(links.AddrOf(r.Dst.IP)) || r.Dst.IP.IsUnspecified() {
			errs = append(errs, fmt.Errorf("route to %v", r.Dst))
		}
	}
	return errors.Join(errs...)
}

// verifyEgress runs in the proxy's namespace.
func (n *Network) verifyEgress(agent netlink.Link) error {
	if agent == nil {
		return errors.New("no link of the agent to follow")
	}
	egress, err := netlink.LinkByName(linkName)
	if err != nil {
		return fmt.Errorf("find link %s: %w", linkName, err)
	}
	internal, err := netlink.LinkByIndex(agent.Attrs().ParentIndex)
	if err != nil {
		return fmt.Errorf("the other end of the agent's link: %w", err)
	}
	name := internal.Attrs().Name
	if name == linkName || internal.Attrs().ParentIndex != agent.Attrs().Index {
		return fmt.Errorf("the agent's link does not end at %s", name)
	}
	sysctls := verifySysctls("net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/rp_filter")
	return errors.Join(
		verifyLinks(egress, internal),
		verifyAddrs("lo", "127.0.0.1/8"),
		n.verifyInternalAddr(internal),
		n.verifyEgressAddr(egress),
		sysctls,
	)
}

func (n *Network) verifyInternalAddr(internal netlink.Link) error {
	held, err := links.Addrs(internal)
	if err != nil {
		return err
	}
	// ptp of 1.1.1 and 1.9.1 gives the gateway's end a host's mask.
	if len(held) != 1 || !strings.HasPrefix(held[0], ProxyAddr.String()+"/") {
		return fmt.Errorf("the internal link has the addresses %v, not %s", held, ProxyAddr)
	}
	return nil
}

// verifyEgressAddr proves that the link holds what IPAM gave, and no IPv6.
func (n *Network) verifyEgressAddr(egress netlink.Link) error {
	held, err := links.Addrs(egress)
	if err != nil {
		return err
	}
	given, err := n.record.egressAddrs()
	if err != nil {
		return err
	}
	var want []string
	for _, a := range given {
		want = append(want, a.String())
	}
	var have []string
	for _, h := range held {
		addr, _, _ := strings.Cut(h, "/")
		have = append(have, addr)
	}
	slices.Sort(want)
	if !slices.Equal(have, want) || len(want) == 0 || slices.ContainsFunc(have, func(a string) bool { return strings.Contains(a, ":") }) {
		return fmt.Errorf("the egress link has the addresses %v, not %v", held, want)
	}
	return nil
}

// verifyLinks wants loopback, these, and no other.
func verifyLinks(these ...netlink.Link) error {
	want := []string{"lo"}
	for _, l := range these {
		if l != nil {
			want = append(want, l.Attrs().Name)
		}
	}
	has, err := links.Names()
	if err != nil {
		return err
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Values(has)); !slices.Equal(got, want) {
		return fmt.Errorf("the links are %v, not %v", got, want)
	}
	return nil
}

func verifyAddrs(name string, want ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	held, err := links.Addrs(link)
	if err != nil {
		return err
	}
	if !slices.Equal(held, want) {
		return fmt.Errorf("link %s has the addresses %v, not %v", name, held, want)
	}
	return nil
}

// verifySysctls reads what both namespaces have, and more keys, as hardening
// has set them.
func verifySysctls(more ...string) error {
	var errs []error
	for _, key := range append(more, sysctl.Forward, "net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/default/disable_ipv6") {
		got, err := sysctl.Get(key)
		switch {
		case os.IsNotExist(err) && strings.HasPrefix(key, "net/ipv6"):
		case err != nil:
			errs = append(errs, err)
		case got != hardening[key]:
			errs = append(errs, fmt.Errorf("%s is %s", key, got))
		}
	}
	return errors.Join(errs...)
}

func (n *Network) verifyFilter() error {
	n.ruling.Lock()
	defer n.ruling.Unlock()
	return n.compareFilter()
}

func (n *Network) compareFilter() error {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.egress.Fd())))
	if err != nil {
		return err
	}
	return nft.Diff(c, filterTable, n.filter())
}
