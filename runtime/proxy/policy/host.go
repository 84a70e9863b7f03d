package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Lengths of names in the DNS (RFC 1035, 2.3.4).
const (
	longestName  = 253
	longestLabel = 63
)

var (
	errNotHost = errors.New("not a host name")
	errLength  = fmt.Errorf("a host name has 1 to %d characters", longestName)
)

// NormalizeHost returns a host name in lower case, in its ASCII form and
// without the root's dot, or a dotted-quad IPv4 address.
func NormalizeHost(s string) (string, error) {
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > 4*longestName { // a character has up to four bytes
		return "", errLength
	}
	if !utf8.ValidString(name) {
		return "", errors.New("not text")
	}
	if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return "", errors.New("blank or control character in a host name")
	}
	ascii, err := toASCII(name)
	if err != nil {
		return "", err
	}
	if len(ascii) > longestName {
		return "", errLength
	}
	labels := strings.Split(ascii, ".")
	if slices.ContainsFunc(labels, func(l string) bool { return !validLabel(l) }) {
		return "", errNotHost
	}
	if err := checkNumeric(ascii, labels[len(labels)-1]); err != nil {
		return "", err
	}
	return ascii, nil
}

// toASCII refuses names whose ASCII form is read back as another name: what is
// decided here would not be what another program looks up.
func toASCII(name string) (string, error) {
	// Underscores, which the rules for hosts forbid, are in use.
	profile := idna.New(idna.MapForLookup(), idna.StrictDomainName(false), idna.Transitional(false))
	ascii, err := profile.ToASCII(name)
	if err != nil {
		return "", errNotHost // the library's error quotes what the agent wrote
	}
	ascii = strings.ToLower(ascii)
	if again, err := profile.ToASCII(ascii); err != nil || again != ascii {
		return "", errNotHost
	}
	return ascii, nil
}

// validLabel is letters, digits, hyphens within, and underscores.
func validLabel(l string) bool {
	if l == "" || len(l) > longestLabel || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(l, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// checkNumeric refuses what a resolver would take for an address although it
// is not a dotted quad: 127.1, 0x7f.1, 2130706433 (inet_aton(3); the same test
// of the last label as in the URL standard, "ends in a number checker").
func checkNumeric(host, last string) error {
	isHex := strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == ""
	if !isHex && strings.Trim(last, "0123456789") != "" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return nil
	}
	return errors.New("an ambiguous address: write it as four decimal numbers")
}
