package uplink

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"carboy/netns/links"
)

// defaultRanges are tried in order. 100.64.0.0/10 is not among them: the rules
// of overlay networks drop it.
var defaultRanges = []netip.Prefix{
	netip.MustParsePrefix("10.77.0.0/16"),
	netip.MustParsePrefix("172.28.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/16"),
}

// neverUsed are refused on every host.
var neverUsed = []Use{
	{netip.MustParsePrefix("100.64.0.0/10"), "dropped by the rules of overlay networks"},
	{linkLocal, "link-local"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("224.0.0.0/3"), "not for single hosts"},
}

// ChooseRange takes the range of the bottles that are up, or one that neither
// the host nor reserved uses: what is asked for, or where that is zero the first
// default that is free. Its errors are of class errdefs.ErrInvalidArgument where
// another range has to be asked for, and errdefs.ErrFailedPrecondition where the
// host has to change. The host is read first: a bottle that comes up meanwhile is
// counted then, and its own link is not mistaken for the host's.
func (s Shared) ChooseRange(asked netip.Prefix, reserved []Use) (netip.Prefix, error) {
	taken, err := hostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	used, err := s.inUse()
	if err != nil {
		return used, fmt.Errorf("egress range in use: %w", err)
	}
	if used.IsValid() {
		if asked.IsValid() && used != asked.Masked() {
			return used, fmt.Errorf("bottles that are up use the egress range %s, not %s (--egress-range): end them first: %w", used, asked, errdefs.ErrFailedPrecondition)
		}
		return used, nil
	}
	return freeRange(asked, append(taken, reserved...))
}

// Use is a prefix and what has it, for people to read.
type Use struct {
	Prefix netip.Prefix
	By     string
}

func freeRange(asked netip.Prefix, taken []Use) (netip.Prefix, error) {
	if asked.IsValid() {
		asked = asked.Masked()
		const most = 29 // room for a link at all
		if !asked.Addr().Is4() || asked.Bits() > most {
			return asked, fmt.Errorf("egress range %s: give an IPv4 prefix of at most /%d: %w", asked, most, errdefs.ErrInvalidArgument)
		}
		if u := overlap(asked, taken); u != nil {
			return asked, fmt.Errorf("egress range %s overlaps %s (%s): choose another with --egress-range: %w", asked, u.Prefix, u.By, errdefs.ErrInvalidArgument)
		}
		return asked, nil
	}
	for _, p := range defaultRanges {
		if overlap(p, taken) == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("this host has routes to all of %v: name a free range with --egress-range: %w", defaultRanges, errdefs.ErrFailedPrecondition)
}

func overlap(p netip.Prefix, taken []Use) *Use {
	for _, uses := range [][]Use{taken, neverUsed} {
		for _, u := range uses {
			if u.Prefix.Overlaps(p) {
				return &u
			}
		}
	}
	return nil
}

// shortest is the length from which on a route counts: VPNs write a default
// route in pieces, such as 0.0.0.0/1 and 128.0.0.0/1.
const shortest = 4

// hostPrefixes are the routes of every table, but default ones, and the
// addresses of every link.
func hostPrefixes() ([]Use, error) {
	names, err := links.Names()
	if err != nil {
		return nil, err
	}
	routes, err := links.Listed(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var uses []Use
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p, err := netip.ParsePrefix(r.Dst.String()); err == nil && p.Bits() >= shortest {
			uses = append(uses, Use{p, fmt.Sprintf("route of table %d by link %q", r.Table, names[r.LinkIndex])})
		}
	}
	addrs, err := links.Listed(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.IPNet.String()); err == nil {
			uses = append(uses, Use{p.Masked(), fmt.Sprintf("address of link %q", names[a.LinkIndex])})
		}
	}
	return uses, nil
}
