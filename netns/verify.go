package netns

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Verify reads back what isolation rests on and names every point that is not
// as it was made.
func (n *Network) Verify() error {
	var agentPeer int
	isolated := inNamespace(n.isolated, func() (err error) {
		agentPeer, err = verifyIsolated()
		return err
	})
	egress := inNamespace(n.egress, func() error { return verifyEgress(agentPeer) })
	var errs []error
	for what, err := range map[string]error{"isolated namespace": isolated, "egress namespace": egress, "filter in the egress namespace": n.verifyFilter()} {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	return errors.Join(errs...)
}

// verifyIsolated runs in the agent's namespace and returns the index of its
// link's other end.
func verifyIsolated() (peer int, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return 0, err
	}
	if got := names(links); !slices.Equal(got, []string{linkName, "lo"}) {
		return 0, fmt.Errorf("links are %v", got)
	}
	want := []string{AgentAddr.String() + "/30", "127.0.0.1/8"}
	if got, err := addrs(netlink.FAMILY_ALL); err != nil || !slices.Equal(got, want) {
		return 0, errors.Join(fmt.Errorf("addresses are %v", got), err)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0, err
	}
	for _, r := range routes {
		if r.Dst == nil || !internalLink.Contains(addrOf(r.Dst.IP)) {
			return 0, fmt.Errorf("route to %v", r.Dst)
		}
	}
	link, err := netlink.LinkByName(linkName)
	if err != nil {
		return 0, err
	}
	return link.Attrs().ParentIndex, verifySysctls()
}

// verifyEgress runs in the proxy's namespace.
func verifyEgress(agentPeer int) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	const count = 3 // loopback, egress, internal
	if len(links) != count {
		return fmt.Errorf("links are %v", names(links))
	}
	internal, err := netlink.LinkByIndex(agentPeer)
	if err != nil {
		return fmt.Errorf("no other end of the agent's link: %w", err)
	}
	if name := internal.Attrs().Name; name == linkName || name == "lo" {
		return fmt.Errorf("the agent's link ends at %s", name)
	}
	held, err := netlink.AddrList(internal, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	if len(held) != 1 || addrOf(held[0].IP) != ProxyAddr {
		return fmt.Errorf("the internal link has addresses %v", held)
	}
	if v6, err := addrs(netlink.FAMILY_V6); err != nil || len(v6) > 0 {
		return errors.Join(fmt.Errorf("IPv6 addresses %v", v6), err)
	}
	return verifySysctls()
}

func verifySysctls() error {
	for key, want := range map[string]string{"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/disable_ipv6": "1"} {
		got, err := getSysctl(key)
		if os.IsNotExist(err) && strings.HasPrefix(key, "net/ipv6") {
			continue
		}
		if err != nil || got != want {
			return errors.Join(fmt.Errorf("%s is %q", key, got), err)
		}
	}
	return nil
}

// verifyFilter compares policies and numbers of rules with what was written.
func (n *Network) verifyFilter() error {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.egress.Fd())))
	if err != nil {
		return err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	for _, want := range n.filter() {
		i := slices.IndexFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name == filterTable.Name && c.Name == want.name })
		if i < 0 || chains[i].Policy == nil || *chains[i].Policy != want.policy {
			return fmt.Errorf("chain %s is missing or does not drop", want.name)
		}
		rules, err := c.GetRules(filterTable, chains[i])
		if err != nil || len(rules) != len(want.rules) {
			return errors.Join(fmt.Errorf("chain %s has %d rules, not %d", want.name, len(rules), len(want.rules)), err)
		}
	}
	return nil
}

func names(links []netlink.Link) []string {
	var out []string
	for _, l := range links {
		out = append(out, l.Attrs().Name)
	}
	slices.Sort(out)
	return out
}

func addrs(family int) ([]string, error) {
	list, err := netlink.AddrList(nil, family)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, a := range list {
		out = append(out, a.IPNet.String())
	}
	slices.Sort(out)
	return out, nil
}
