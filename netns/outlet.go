package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"carboy/netns/nft"
	"carboy/netns/sysctl"
)

// Outlet is one namespace with a link to the host and no other: where the RUN
// steps of a build get out. It shares address range and host table with the
// bottles, and is undone by Detach like a bottle's network.
type Outlet struct{ network *Network }

// NewOutlet checks a configuration as New does. Ports do not matter: a build
// fetches by any protocol, from public addresses.
func NewOutlet(c Config) (*Outlet, error) {
	c.ProxyPort = 1 // none listens
	n, err := New(c)
	if err != nil {
		return nil, err
	}
	n.record.Internal = ""
	return &Outlet{n}, nil
}

// Record is what Detach needs; it can be stored.
func (o *Outlet) Record() Record { return o.network.record }

// Path is the namespace, for as long as this process lives and Close was not
// called.
func (o *Outlet) Path() string { return o.network.EgressPath() }

// Close lets go of the namespace.
func (o *Outlet) Close() error { return o.network.Close() }

// Reassert is Network's.
func (o *Outlet) Reassert(ctx context.Context) error { return o.network.Reassert(ctx) }

// Up makes the namespace, filters it, plugs its link and reads back what is in
// force. On error nothing is left but what Detach removes.
func (o *Outlet) Up(ctx context.Context) (err error) {
	n := o.network
	if n.egress, err = newNamespace(); err != nil {
		return fmt.Errorf("egress namespace: %w", err)
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(n.egress.Fd())))
	if err != nil {
		return err
	}
	if err := nft.Replace(c, filterTable, o.filter()); err != nil {
		return fmt.Errorf("filter in the egress namespace: %w", err)
	}
	mark, err := n.record.takeMark(ctx)
	if err != nil {
		return fmt.Errorf("mark of the build's CNI plugins: %w", err)
	}
	if err := errors.Join(n.plugEgress(ctx, mark), mark.Close()); err != nil {
		return err
	}
	return o.verify(c)
}

// filter lets public addresses be reached, by any protocol, and the resolvers.
func (o *Outlet) filter() []nft.Chain {
	output := []nft.Words{
		nft.Rule(nft.To("lo"), nft.Accept()),
		nft.Rule(nft.Known(), nft.Accept()),
	}
	for _, r := range o.network.Resolvers {
		for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			output = append(output, nft.Rule(nft.IP4(), nft.Dest(nft.Host(r)), nft.Port(protocol, 53), nft.Accept()))
		}
	}
	for _, p := range notPublic {
		output = append(output, nft.Rule(nft.IP4(), nft.Dest(p), nft.Reset()), nft.Rule(nft.IP4(), nft.Dest(p), nft.Drop()))
	}
	output = append(output, nft.Rule(nft.IP4(), nft.Accept()))
	input := []nft.Words{
		nft.Rule(nft.From("lo"), nft.Accept()),
		nft.Rule(nft.Known(), nft.Accept()),
	}
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

// notPublic are the networks that are somebody's own, and the services of
// clouds for their machines (package policy has the sources).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("168.63.129.16/32"),
	linkLocal,
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

func (o *Outlet) verify(c *nftables.Conn) error {
	n := o.network
	links := inNamespace(n.egress, func() error {
		return errors.Join(verifyAddrs("lo", "127.0.0.1/8"), verifySysctls(append(ipv6Off, sysctl.Forward)...))
	})
	return errors.Join(named("egress namespace", links), named("filter in the egress namespace", nft.Diff(c, filterTable, o.filter())))
}
