package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Version of the policy's JSON form.
const Version = 1

// Policy is what may be reached. Private lists addresses that may be although
// they are not public.
type Policy struct {
	Allow   []Pattern
	Private []netip.Prefix
}

type policyJSON struct {
	Version int            `json:"version"`
	Allow   []Pattern      `json:"allow"`
	Private []netip.Prefix `json:"private"`
}

// MarshalJSON is sorted and stable.
func (p Policy) MarshalJSON() ([]byte, error) {
	j := policyJSON{Version: Version, Allow: slices.Clone(p.Allow), Private: slices.Clone(p.Private)}
	slices.SortFunc(j.Allow, func(a, b Pattern) int { return strings.Compare(a.String(), b.String()) })
	slices.SortFunc(j.Private, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return json.Marshal(j)
}

// UnmarshalJSON refuses unknown keys and other versions.
func (p *Policy) UnmarshalJSON(b []byte) error {
	var j policyJSON
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("more than one JSON value")
	}
	if j.Version != Version {
		return fmt.Errorf("policy version %d, this program reads %d", j.Version, Version)
	}
	p.Allow, p.Private = j.Allow, j.Private
	return nil
}

// Rule returns the pattern that allows a normalised host.
func (p Policy) Rule(host string, port uint16) (Pattern, bool) {
	i := slices.IndexFunc(p.Allow, func(a Pattern) bool { return a.Match(host, port) })
	if i < 0 {
		return Pattern{}, false
	}
	return p.Allow[i], true
}

// Plain says whether a port was declared to carry something else than TLS.
func (p Policy) Plain(host string, port uint16) bool {
	return slices.ContainsFunc(p.Allow, func(a Pattern) bool { return a.plain && a.Match(host, port) })
}

// Ports are all that any pattern may use, and the web's.
func (p Policy) Ports() []uint16 {
	ports := slices.Clone(WebPorts)
	for _, a := range p.Allow {
		ports = append(ports, a.Ports()...)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// Permit refuses addresses that are not public, unless they are declared.
func (p Policy) Permit(a netip.Addr) error {
	a = a.WithZone("")
	declared := slices.ContainsFunc(p.Private, func(d netip.Prefix) bool {
		// A cloud's metadata service hands out credentials: a wide prefix is
		// not enough to mean it.
		return d.Contains(a) && (!linkLocal.Contains(a) || d.IsSingleIP())
	})
	if reason := notPublic(a); reason != "" && !declared {
		return fmt.Errorf("%s is %s", a, reason)
	}
	return nil
}

var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// special are ranges of IANA's registries of special-purpose addresses (RFC
// 6890 and its updates) that netip has no word for.
var special = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("192.0.0.0/24"), "for protocols"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
}

// notPublic says why an address is not a public IPv4 one, or nothing.
func notPublic(a netip.Addr) string {
	switch {
	case !a.Is4(): // IPv4 inside IPv6 too: a bottle has no IPv6
		return "IPv6"
	case a.IsLoopback():
		return "loopback"
	case a.IsPrivate():
		return "private"
	case a.IsLinkLocalUnicast():
		return "link-local"
	case a.IsMulticast():
		return "multicast"
	}
	for _, s := range special {
		if s.prefix.Contains(a) {
			return s.what
		}
	}
	return ""
}
