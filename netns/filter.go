package netns

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// filterTable is the table in the egress namespace.
var filterTable = &nftables.Table{Name: "carboy", Family: nftables.TableFamilyINet}

var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// filter is the second line behind the topology. What is neither loopback nor
// the egress link is the internal link, so the rules are right before either
// link exists. They also hold a proxy that was taken over to its ports.
func (n *Network) filter() []chain {
	proxy := rule(ip4(), dest(host(ProxyAddr)), port(unix.IPPROTO_TCP, n.ProxyPort))
	input := []words{
		rule(from("lo"), accept()),
		rule(from(linkName), known(), accept()),
		rule(notFrom(linkName), proxy, accept()),
	}
	output := []words{
		rule(to("lo"), accept()),
		rule(notTo(linkName), known(), accept()),
		rule(notTo(linkName), drop()),
		rule(ip4(), dest(linkLocal), reset()),
		rule(ip4(), dest(linkLocal), drop()),
		rule(known(), accept()),
	}
	for _, r := range n.Resolvers {
		for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			output = append(output, rule(ip4(), dest(host(r)), port(protocol, 53), accept()))
		}
	}
	for _, p := range n.Ports {
		output = append(output, rule(ip4(), port(unix.IPPROTO_TCP, p), accept()))
	}
	output = append(output, reset())
	base := func(name string, hook *nftables.ChainHook, rules []words) chain {
		return chain{name: name, kind: nftables.ChainTypeFilter, hook: hook, priority: nftables.ChainPriorityFilter,
			policy: nftables.ChainPolicyDrop, rules: rules}
	}
	return []chain{
		base("input", nftables.ChainHookInput, input),
		base("forward", nftables.ChainHookForward, nil),
		base("output", nftables.ChainHookOutput, output),
	}
}

// installFilter puts the filter in force, or a changed one in its place.
func (n *Network) installFilter() error {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.egress.Fd())))
	if err != nil {
		return err
	}
	return replace(c, filterTable, n.filter())
}
