package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"carboy/netns"
	"carboy/netns/uplink"
)

func plugins(ctx context.Context, p *Patient) Finding {
	if p.NetworkErr != nil {
		return failed(p.NetworkErr)
	}
	dir, err := netns.FindPlugins(p.PluginDirs)
	if err != nil {
		what, out, _ := strings.Cut(words(err), ": install")
		return fail(what, "install"+out)
	}
	newest, err := netns.PluginVersion(ctx, dir)
	if err != nil {
		return fail(words(err), "carboy needs those of CNI plugins 1.1.1 or newer (apt install containernetworking-plugins), see --cni-bin-dir")
	}
	found := fmt.Sprintf("ptp and host-local in %s, CNI %s", dir, newest)
	if p.Network != "" {
		found += fmt.Sprintf(", and your network %q", p.Network)
	}
	return ok(found)
}

// network is what a bottle would get, made in memory.
func (p *Patient) network(resolvers []netip.Addr) (*netns.Network, error) {
	return netns.New(netns.Config{
		Instance: "doctor", StateDir: p.StateDir, PluginDir: "/", Range: p.Range, Reserved: p.Reserved, Conflist: p.Conflist,
		Resolvers: resolvers, ProxyPort: 1,
	})
}

// nftables makes the namespaces of a bottle and the filter in them: they end
// with their descriptors.
func nftables(_ context.Context, p *Patient) Finding {
	n, err := p.network(nil)
	if err != nil {
		return warn("not looked at: "+words(err), "")
	}
	if err := errors.Join(n.Open(), n.Close()); err != nil {
		return fail(words(err), "the kernel needs nf_tables, and carboy CAP_NET_ADMIN and CAP_SYS_ADMIN")
	}
	return ok("a bottle's namespaces and their filter can be made")
}

// firewall reads policies and sends no packet.
func firewall(_ context.Context, p *Patient) Finding {
	barriers, err := uplink.Barriers()
	if err != nil {
		return warn(words(err), "")
	}
	return judgeBarriers(barriers, p)
}

func judgeBarriers(barriers []uplink.Barrier, p *Patient) Finding {
	if len(barriers) == 0 {
		return ok("nothing drops what bottles send, as far as chains of the forward hook say; --packet proves it")
	}
	var found, shut []string
	for _, b := range barriers {
		text := fmt.Sprintf("%s drops what it does not know in chain %q", b.Owner, b.Chain)
		if b.Shut != "" {
			text += " (" + b.Shut + ")"
			shut = append(shut, opening(b, p))
		}
		found = append(found, text)
	}
	text := strings.Join(found, "; ")
	if len(shut) > 0 {
		return warn(text+": bottles reach nothing", strings.Join(shut, "; "))
	}
	return ok(text + ": carboy puts a pair of rules there while bottles live")
}

func opening(b uplink.Barrier, p *Patient) string {
	n, err := p.network(nil)
	if err != nil || b.Owner != "firewalld" {
		return "have " + b.Owner + " accept what bottles send and its answers"
	}
	return "firewall-cmd --permanent --zone=trusted --add-source=" + n.Range.String() + " && firewall-cmd --reload"
}

// way proves by a packet what firewall reads: the host asks the same, so that a
// resolver that is down is not taken for a firewall.
func way(ctx context.Context, p *Patient) Finding {
	servers, err := p.CheckResolvers()
	if err != nil {
		return warn("not tried: there is no resolver to ask", "")
	}
	dir, err := netns.FindPlugins(p.PluginDirs)
	if err != nil {
		return warn("not tried: there are no plugins", "")
	}
	host, bottle := p.ask(ctx, servers[0]), p.daemon.Ask(ctx, dir, servers[0])
	switch {
	case bottle == nil:
		return ok(fmt.Sprintf("resolver %s answers a bottle", servers[0]))
	case host != nil:
		return warn(fmt.Sprintf("resolver %s answers neither the host nor a bottle: %s", servers[0], words(bottle)), "name another with --dns")
	}
	return fail(fmt.Sprintf("resolver %s answers the host and not a bottle: %s", servers[0], words(bottle)),
		"see `nft list ruleset`, and the firewalls before this host, for what drops packets of its bottles")
}

func forwarding(_ context.Context, p *Patient) Finding {
	value, err := p.text("proc/sys/net/ipv4/ip_forward")
	switch {
	case err != nil:
		return warn(words(err), "")
	case value == "1":
		return ok("on, and stays so")
	}
	return ok("off: carboy turns it on while bottles live, and drops what is not theirs")
}

func addresses(_ context.Context, p *Patient) Finding {
	if p.Network != "" {
		return ok(fmt.Sprintf("your network %q gives the addresses", p.Network))
	}
	n, err := p.network(nil)
	if errors.Is(err, fs.ErrPermission) {
		return warn("not looked at: that takes root", "run `sudo carboy doctor`")
	}
	if err != nil {
		return fail(words(err), "")
	}
	return ok(n.Range.String() + " is free, or used by bottles")
}

// defaultRoute: bottles speak IPv4 alone.
func defaultRoute(_ context.Context, p *Patient) Finding {
	v4, err := p.text("proc/net/route")
	if err != nil {
		return warn(words(err), "")
	}
	v6, _ := p.text("proc/net/ipv6_route") // a kernel without has none
	has4, has6 := hasDefault(v4, 1, "00000000"), hasDefault(v6, 0, strings.Repeat("0", 32)+" 00")
	switch {
	case has4:
		return ok("there is a default route; in bottles IPv6 is off")
	case has6:
		return fail("the host has a default route for IPv6 only, and bottles have IPv4 only", "give the host an IPv4 address, or NAT64 by a CLAT")
	}
	return warn("the host has no default route: bottles reach what it has routes to", "")
}

// hasDefault looks for a network from a column on, in the kernel's notation; the
// loopback's do not count.
func hasDefault(table string, column int, network string) bool {
	for row := range strings.Lines(table) {
		fields := strings.Fields(row)
		if len(fields) > column && strings.HasPrefix(strings.Join(fields[column:], " ")+" ", network+" ") && fields[0] != "lo" && fields[len(fields)-1] != "lo" {
			return true
		}
	}
	return false
}

func resolvers(_ context.Context, p *Patient) Finding {
	servers, err := p.CheckResolvers()
	if err != nil {
		return fail(words(err), "name one with --dns")
	}
	if _, err := p.network(servers); err != nil && len(p.DNS) > 0 {
		return fail(words(err), "")
	}
	return ok(strings.Trim(fmt.Sprint(servers), "[]"))
}
