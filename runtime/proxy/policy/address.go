package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// ParsePrefix reads addresses that may be declared: one, or a prefix.
func ParsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return prefix, fmt.Errorf("private address %.100q: give an address or a prefix, as in 10.1.2.3/32", s)
	}
	return prefix.Masked(), nil
}

// Permit refuses addresses that are not public, unless they are declared.
func (p Policy) Permit(a netip.Addr) error {
	a = a.WithZone("")
	declared := slices.ContainsFunc(p.Private, func(d netip.Prefix) bool {
		return d.Contains(a) && (d.IsSingleIP() || !givesCredentials(a))
	})
	if reason := Refused(a); reason != "" && !declared {
		return fmt.Errorf("%s is %s", a, reason)
	}
	return nil
}

// Refused says why an address is not a public IPv4 one, or nothing. All of
// IPv6 is refused: bottles have none.
func Refused(a netip.Addr) (reason string) {
	a = a.WithZone("")
	if !a.IsValid() {
		return "no address"
	}
	if a.Is4In6() {
		return "IPv4 inside IPv6"
	}
	for _, s := range special() {
		if s.prefix.Contains(a) {
			return s.what
		}
	}
	if !a.Is4() {
		return "IPv6, which bottles do not have"
	}
	return ""
}

// givesCredentials is true for services that clouds offer to every machine and
// that hand out its keys, and for the link-local range where most of them are:
// to declare a wide prefix is not to mean them.
func givesCredentials(a netip.Addr) bool {
	return slices.ContainsFunc(special(), func(s specialRange) bool {
		return (s.what == metadata || s.what == linkLocal) && s.prefix.Contains(a)
	})
}

const (
	metadata  = "a cloud's metadata service"
	linkLocal = "link-local"
)

type specialRange struct {
	prefix netip.Prefix
	what   string
}

// special are IANA's registries of special-purpose addresses (RFC 6890 and its
// updates) and the metadata services that lie outside of them or need a name:
// EC2 and most others, ECS, EKS, Alibaba, Oracle, and Azure's wire server. The
// first that contains an address counts.
func special() []specialRange {
	r := func(prefix, what string) specialRange { return specialRange{netip.MustParsePrefix(prefix), what} }
	return []specialRange{
		r("169.254.169.254/32", metadata),
		r("169.254.170.2/32", metadata),
		r("169.254.170.23/32", metadata),
		r("100.100.100.200/32", metadata),
		r("192.0.0.192/32", metadata),
		r("168.63.129.16/32", metadata),
		r("0.0.0.0/32", "unspecified"),
		r("0.0.0.0/8", "this network"),
		r("10.0.0.0/8", "private"),
		r("100.64.0.0/10", "carrier-grade NAT"),
		r("127.0.0.0/8", "loopback"),
		r("169.254.0.0/16", linkLocal),
		r("172.16.0.0/12", "private"),
		r("192.0.0.0/24", "for protocols"),
		r("192.0.2.0/24", "for documentation"),
		r("192.88.99.0/24", "a 6to4 relay"),
		r("192.168.0.0/16", "private"),
		r("198.18.0.0/15", "for benchmarks"),
		r("198.51.100.0/24", "for documentation"),
		r("203.0.113.0/24", "for documentation"),
		r("224.0.0.0/4", "multicast"),
		r("255.255.255.255/32", "broadcast"),
		r("240.0.0.0/4", "reserved"),
		r("::/128", "unspecified"),
		r("::1/128", "loopback"),
		r("::/96", "IPv4 inside IPv6"),
		r("64:ff9b::/96", "NAT64"),
		r("64:ff9b:1::/48", "NAT64"),
		r("2001::/32", "Teredo"),
		r("2001:db8::/32", "for documentation"),
		r("2002::/16", "6to4"),
		r("fc00::/7", "private"),
		r("fe80::/10", linkLocal),
		r("ff00::/8", "multicast"),
	}
}
