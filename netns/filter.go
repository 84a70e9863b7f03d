package netns

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"carboy/netns/nft"
)

// filterTable is the table in the egress namespace.
var filterTable = &nftables.Table{Name: "carboy", Family: nftables.TableFamilyINet}

var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// filter is the second line behind the topology. What is neither loopback nor
// the egress link is the internal link, so the rules are right before either
// link exists. They also hold a proxy that was taken over to its ports.
func (n *Network) filter() []nft.Chain {
	proxy := nft.Rule(nft.IP4(), nft.Dest(nft.Host(ProxyAddr)), nft.Port(unix.IPPROTO_TCP, n.ProxyPort))
	input := []nft.Words{
		nft.Rule(nft.From("lo"), nft.Accept()),
		nft.Rule(nft.From(linkName), nft.Known(), nft.Accept()),
		nft.Rule(nft.NotFrom(linkName), proxy, nft.Accept()),
	}
	output := []nft.Words{
		nft.Rule(nft.To("lo"), nft.Accept()),
		nft.Rule(nft.NotTo(linkName), nft.Known(), nft.Accept()),
		nft.Rule(nft.NotTo(linkName), nft.Drop()),
		nft.Rule(nft.IP4(), nft.Dest(linkLocal), nft.Reset()),
		nft.Rule(nft.IP4(), nft.Dest(linkLocal), nft.Drop()),
		nft.Rule(nft.Known(), nft.Accept()),
	}
	for _, r := range n.Resolvers {
		for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			output = append(output, nft.Rule(nft.IP4(), nft.Dest(nft.Host(r)), nft.Port(protocol, 53), nft.Accept()))
		}
	}
	for _, p := range n.Ports {
		output = append(output, nft.Rule(nft.IP4(), nft.Port(unix.IPPROTO_TCP, p), nft.Accept()))
	}
	output = append(output, nft.Reset())
	base := func(name string, hook *nftables.ChainHook, rules []nft.Words) nft.Chain {
		return nft.Chain{Name: name, Kind: nftables.ChainTypeFilter, Hook: hook, Priority: nftables.ChainPriorityFilter,
			Policy: nftables.ChainPolicyDrop, Rules: rules}
	}
	return []nft.Chain{
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
	return nft.Replace(c, filterTable, n.filter())
}
