// Package policy is what an agent may reach, in the terms that the command
// line and the allowlist engine share: patterns of hosts, addresses that are
// never reached unless declared, and the record of a decision.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Pattern is a host, or every name below a domain, on some ports. Its zero
// value matches nothing.
type Pattern struct {
	host     string
	wildcard bool   // *.host
	port     uint16 // zero: 80 and 443
	plain    bool   // declared to carry something else than TLS
}

// WebPorts are what a pattern without a port allows.
var WebPorts = []uint16{80, 443}

// ParsePattern reads `example.com`, `*.example.com` (every name below, not the
// domain itself), either with `:port`, and `tcp:host:port` for a port that
// carries something else than TLS. Hosts may be IPv4 addresses.
func ParsePattern(s string) (Pattern, error) {
	bad := func(format string, args ...any) (Pattern, error) {
		return Pattern{}, fmt.Errorf("bad host pattern %q: %s", s, fmt.Sprintf(format, args...))
	}
	text := s
	if strings.Contains(text, "://") || strings.ContainsAny(text, "/@?#") {
		return bad("give the host only, as in example.com")
	}
	var p Pattern
	text, p.plain = strings.CutPrefix(text, "tcp:")
	host, port, hasPort := strings.Cut(text, ":")
	if strings.Contains(port, ":") {
		return bad("bottles have no IPv6: give a name or an IPv4 address")
	}
	if p.plain && !hasPort {
		return bad("tcp: needs a port, as in tcp:git.example.com:22")
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return bad("%q is not a port", port)
		}
		p.port = uint16(n)
	}
	host, p.wildcard = strings.CutPrefix(host, "*.")
	if strings.Contains(host, "*") {
		return bad("* stands only for whole first labels, as in *.example.com")
	}
	var err error
	if p.host, err = NormalizeHost(host); err != nil {
		return bad("%v", err)
	}
	if p.wildcard && !strings.Contains(p.host, ".") {
		return bad("*.%s would be a whole top-level domain", p.host)
	}
	if _, err := netip.ParseAddr(p.host); err == nil && p.wildcard {
		return bad("an address has no names below it")
	}
	return p, nil
}

// profile converts names to their form in the DNS. Underscores, which the
// host-name rules forbid, are in use.
var profile = idna.New(idna.MapForLookup(), idna.StrictDomainName(false), idna.Transitional(false))

// NormalizeHost returns a host name in lower case, in its ASCII form and
// without the root's dot, or a dotted-quad IPv4 address.
func NormalizeHost(s string) (string, error) {
	const longest = 253
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > 4*longest {
		return "", fmt.Errorf("a host name has 1 to %d characters", longest)
	}
	if !utf8.ValidString(name) {
		return "", fmt.Errorf("not text")
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }); i >= 0 {
		return "", fmt.Errorf("blank or control character at %d", i)
	}
	ascii, err := profile.ToASCII(name)
	if err != nil {
		return "", fmt.Errorf("not a host name: %w", err)
	}
	ascii = strings.ToLower(ascii)
	if again, err := profile.ToASCII(ascii); err != nil || again != ascii {
		return "", fmt.Errorf("not a host name") // no other program could read it back
	}
	if len(ascii) > longest {
		return "", fmt.Errorf("a host name has 1 to %d characters", longest)
	}
	labels := strings.Split(ascii, ".")
	if slices.ContainsFunc(labels, func(l string) bool { return !validLabel(l) }) {
		return "", fmt.Errorf("not a host name")
	}
	return ascii, checkNumeric(ascii, labels[len(labels)-1])
}

func validLabel(l string) bool {
	const longest = 63
	if l == "" || len(l) > longest {
		return false
	}
	return !strings.ContainsFunc(l, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// checkNumeric refuses what a resolver would take for an address although it
// is not a dotted quad: 127.1, 0x7f.1, 2130706433 (inet_aton(3)). No top-level
// domain is a number.
func checkNumeric(host, last string) error {
	numeric := last[0] >= '0' && last[0] <= '9'
	if _, err := strconv.ParseUint(last, 0, 64); err != nil && !strings.HasPrefix(last, "0x") {
		numeric = numeric && !strings.ContainsFunc(last, func(r rune) bool { return r < '0' || r > '9' })
	}
	if !numeric {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return nil
	}
	return fmt.Errorf("an ambiguous address: write it as four decimal numbers")
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

// Match takes a normalised host.
func (p Pattern) Match(host string, port uint16) bool {
	if p.host == "" || !slices.Contains(p.Ports(), port) {
		return false
	}
	if p.wildcard {
		return strings.HasSuffix(host, "."+p.host)
	}
	return host == p.host
}

// Ports are those the pattern allows.
func (p Pattern) Ports() []uint16 {
	if p.port != 0 {
		return []uint16{p.port}
	}
	return WebPorts
}

// MarshalText and UnmarshalText make a pattern a string in JSON.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePattern.
func (p *Pattern) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePattern(string(b))
	return err
}
