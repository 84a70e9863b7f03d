package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// defaultRanges are tried in order. 100.64.0.0/10 is not among them: the rules
// of overlay networks drop it.
var defaultRanges = []netip.Prefix{
	netip.MustParsePrefix("10.77.0.0/16"),
	netip.MustParsePrefix("172.28.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/16"),
}

// chooseRange takes the range of the bottles that are up, or one that the host
// does not use.
func chooseRange(c Config) (netip.Prefix, error) {
	s := Record{StateDir: c.StateDir}.shared()
	users, err := s.users()
	if err != nil {
		return netip.Prefix{}, err
	}
	if len(users) > 0 {
		used, err := s.readRange()
		if err == nil && c.Range.IsValid() && used != c.Range.Masked() {
			return used, fmt.Errorf("bottles that are up use the egress range %s, not %s: end them first: %w", used, c.Range, errdefs.ErrFailedPrecondition)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return used, err
		}
	}
	taken, err := hostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, p := range c.Reserved {
		taken = append(taken, use{p, "reserved by the configuration"})
	}
	return freeRange(c.Range, taken)
}

// use is a prefix and what has it.
type use struct {
	prefix netip.Prefix
	by     string
}

func freeRange(asked netip.Prefix, taken []use) (netip.Prefix, error) {
	if asked.IsValid() {
		asked = asked.Masked()
		const most = 29 // room for a link at all
		if !asked.Addr().Is4() || asked.Bits() > most {
			return asked, fmt.Errorf("egress range %s: give an IPv4 prefix of at most /%d: %w", asked, most, errdefs.ErrInvalidArgument)
		}
		if u := overlap(asked, taken); u != nil {
			return asked, fmt.Errorf("egress range %s overlaps %s (%s): choose another with --egress-range: %w", asked, u.prefix, u.by, errdefs.ErrInvalidArgument)
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

func overlap(p netip.Prefix, taken []use) *use {
	for _, u := range append(taken, use{internalLink, "the link between agent and proxy"}) {
		if u.prefix.Overlaps(p) {
			return &u
		}
	}
	return nil
}

// hostPrefixes are the routes of every table, but default ones, and the
// addresses of every link.
func hostPrefixes() ([]use, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var uses []use
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p, err := netip.ParsePrefix(r.Dst.String()); err == nil && p.Bits() > 0 {
			uses = append(uses, use{p, fmt.Sprintf("a route of table %d", r.Table)})
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.IPNet.String()); err == nil {
			uses = append(uses, use{p.Masked(), "an address of link " + a.Label})
		}
	}
	return uses, nil
}
