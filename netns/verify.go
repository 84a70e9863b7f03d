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

// Point is something that isolation rests on and that can be read back.
type Point struct {
	Name string
	Want string       // what is proved
	Read func() error // what is not so
}

// Points are all of them, to be read at any time. A sandbox of gVisor has taken
// the agent's addresses over from the kernel once it has started.
func (n *Network) Points(sandbox bool) []Point {
	agent := []string{AgentAddr.String() + "/30"}
	if sandbox {
		agent = nil
	}
	isolated := func(f func() error) func() error { return n.reading("isolated", n.isolated, f) }
	both := func(f func() error) func() error {
		return func() error { return errors.Join(isolated(f)(), n.reading("egress", n.egress, f)()) }
	}
	return []Point{
		{"links", "lo and " + linkName + " alone", isolated(func() error { return verifyLinks(linkName) })},
		{"addresses", "the agent's one, and loopback's", isolated(func() error {
			return errors.Join(verifyAddrs("lo", "127.0.0.1/8"), verifyAddrs(linkName, agent...))
		})},
		{"routes", "none beyond the link to the proxy", isolated(verifyRoutes)},
		{"peer", "the agent's link ends at its own proxy", n.verifyPeer},
		{"ipv6", "off in both namespaces", both(func() error { return verifySysctls(ipv6Off...) })},
		{"forwarding", "off in both namespaces", both(func() error { return verifySysctls(sysctl.Forward) })},
		{"egress", "the proxy has two links, and the addresses it was given", n.verifyEgress},
		{"filter", "as written", n.verifyFilter},
	}
}

func (n *Network) reading(what string, ns *os.File, f func() error) func() error {
	return func() error { return named(what+" namespace", inNamespace(ns, f)) }
}

// Verify reads back what isolation rests on, before a container starts in it,
// and names every point that is not proved.
func (n *Network) Verify() error {
	var errs []error
	for _, p := range n.Points(false) {
		errs = append(errs, named(p.Name, p.Read()))
	}
	return errors.Join(errs...)
}

func named(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// verifyPeer proves that the agent's link and one in the egress namespace are
// each other's ends: an index alone also fits a link of another namespace.
func (n *Network) verifyPeer() error {
	agent, err := n.agentLink()
	if err != nil {
		return err
	}
	return n.reading("egress", n.egress, func() error {
		_, err := otherEnd(agent)
		return err
	})()
}

// agentLink is the one in the isolated namespace, if it ends in the egress
// namespace.
func (n *Network) agentLink() (link netlink.Link, err error) {
	err = n.reading("isolated", n.isolated, func() (err error) {
		if link, err = netlink.LinkByName(linkName); err != nil {
			return fmt.Errorf("find link %s: %w", linkName, err)
		}
		return n.endsInEgress(link)
	})()
	return link, err
}

func (n *Network) endsInEgress(link netlink.Link) error {
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
		if r.Dst == nil || !InternalLink.Contains(links.AddrOf(r.Dst.IP)) || r.Dst.IP.IsUnspecified() {
			errs = append(errs, fmt.Errorf("route to %v", r.Dst))
		}
	}
	return errors.Join(errs...)
}

// verifyEgress reads the proxy's namespace.
func (n *Network) verifyEgress() error {
	agent, err := n.agentLink()
	if err != nil {
		return err
	}
	return n.reading("egress", n.egress, func() error {
		egress, err := netlink.LinkByName(linkName)
		if err != nil {
			return fmt.Errorf("find link %s: %w", linkName, err)
		}
		internal, err := otherEnd(agent)
		if err != nil {
			return err
		}
		return errors.Join(
			verifyLinks(linkName, internal.Attrs().Name),
			verifyAddrs("lo", "127.0.0.1/8"),
			n.verifyInternalAddr(internal),
			n.verifyEgressAddr(egress),
			verifySysctls("net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/rp_filter"),
		)
	})()
}

// otherEnd runs in the egress namespace.
func otherEnd(agent netlink.Link) (netlink.Link, error) {
	internal, err := netlink.LinkByIndex(agent.Attrs().ParentIndex)
	if err != nil {
		return nil, fmt.Errorf("the other end of the agent's link: %w", err)
	}
	name := internal.Attrs().Name
	if name == linkName || internal.Attrs().ParentIndex != agent.Attrs().Index {
		return nil, fmt.Errorf("the agent's link does not end at %s", name)
	}
	return internal, nil
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
func verifyLinks(names ...string) error {
	has, err := links.Names()
	if err != nil {
		return err
	}
	want := slices.Sorted(slices.Values(append(names, "lo")))
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

var ipv6Off = []string{"net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/default/disable_ipv6"}

// verifySysctls reads keys that hardening has set.
func verifySysctls(keys ...string) error {
	var errs []error
	for _, key := range keys {
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
