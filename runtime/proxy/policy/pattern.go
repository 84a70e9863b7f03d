// Package policy is what an agent may reach, in the terms that the command
// line and the allowlist engine share: patterns of hosts, addresses that are
// never reached unless declared, and the record of a decision. It resolves and
// dials nothing.
package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Pattern is a host, or every name below a domain, on some ports. Its zero
// value matches nothing.
type Pattern struct {
	host     string
	wildcard bool   // *.host
	port     uint16 // zero: the web's
	plain    bool   // declared to carry something else than TLS
}

// webPorts are what a pattern without a port allows.
func webPorts() []uint16 { return []uint16{80, 443} }

// ParsePattern reads `example.com`, `*.example.com` (every name below, not the
// domain itself), either with `:port`, and `tcp:host:port` for a port that
// carries something else than TLS. Hosts may be IPv4 addresses.
func ParsePattern(s string) (Pattern, error) {
	p, err := parsePattern(s)
	if err != nil {
		return Pattern{}, fmt.Errorf("bad host pattern %.100q: %w", s, err)
	}
	return p, nil
}

func parsePattern(s string) (p Pattern, err error) {
	if strings.ContainsAny(s, `/\@?#`) {
		return p, fmt.Errorf("give the host only, as in %s", hostIn(s))
	}
	text, plain := strings.CutPrefix(s, "tcp:")
	host, port, hasPort := strings.Cut(text, ":")
	if strings.Contains(port, ":") {
		return p, errors.New("bottles have no IPv6: give a name or an IPv4 address")
	}
	if plain && !hasPort {
		return p, errors.New("tcp: needs a port, as in tcp:git.example.com:22")
	}
	p.plain = plain
	if hasPort {
		if p.port, err = parsePort(port); err != nil {
			return p, err
		}
	}
	if host, p.wildcard = strings.CutPrefix(host, "*."); strings.Contains(host, "*") {
		return p, errors.New("* stands only for whole first labels, as in *.example.com")
	}
	if p.host, err = NormalizeHost(host); err != nil {
		return p, err
	}
	return p, p.checkWildcard()
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %.20q is not one of 1 to 65535", s)
	}
	return uint16(n), nil
}

func (p Pattern) checkWildcard() error {
	if !p.wildcard {
		return nil
	}
	if !strings.Contains(p.host, ".") {
		return fmt.Errorf("*.%s is a whole top-level domain: name one below it, as in *.example.%[1]s", p.host)
	}
	if _, err := netip.ParseAddr(p.host); err == nil {
		return errors.New("an address has no names below it")
	}
	return nil
}

// hostIn finds the host in what looks like a URL.
func hostIn(s string) string {
	if _, after, ok := strings.Cut(s, "://"); ok {
		s = after
	}
	if i := strings.IndexAny(s, `/\?#`); i >= 0 {
		s = s[:i]
	}
	s = s[strings.LastIndexByte(s, '@')+1:]
	host, _, _ := strings.Cut(s, ":")
	if host, err := NormalizeHost(host); err == nil {
		return host
	}
	return "example.com"
}

// Host is the pattern without its port.
func (p Pattern) Host() string {
	if p.wildcard {
		return "*." + p.host
	}
	return p.host
}

// String is a text that ParsePattern reads as the same pattern.
func (p Pattern) String() string {
	s := p.Host()
	if p.port != 0 {
		s += ":" + strconv.Itoa(int(p.port))
	}
	if p.plain {
		s = "tcp:" + s
	}
	return s
}

// HasPort says that the pattern names one.
func (p Pattern) HasPort() bool { return p.port != 0 }

// Match takes a normalised host.
func (p Pattern) Match(host string, port uint16) bool {
	return p.matchHost(host) && slices.Contains(p.Ports(), port)
}

func (p Pattern) matchHost(host string) bool {
	if p.host == "" {
		return false
	}
	if p.wildcard {
		return strings.HasSuffix(host, "."+p.host)
	}
	return host == p.host
}

// Apexes are the domains of wildcards that are not allowed themselves: `*.a.test`
// does not mean a.test.
func (p Policy) Apexes() []string {
	apexes := []string{}
	for _, a := range p.Allow {
		if a.wildcard && !slices.ContainsFunc(p.Allow, func(b Pattern) bool { return b.matchHost(a.host) }) {
			apexes = append(apexes, a.host)
		}
	}
	slices.Sort(apexes)
	return slices.Compact(apexes)
}

// Ports are those the pattern allows.
func (p Pattern) Ports() []uint16 {
	if p.port != 0 {
		return []uint16{p.port}
	}
	return webPorts()
}

// MarshalText and UnmarshalText make a pattern a string in JSON.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePattern.
func (p *Pattern) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePattern(string(b))
	return err
}
