package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Version of the policy's JSON form.
const Version = 1

// Policy is what may be reached. Private lists addresses that may be although
// they are not public. Intercept are those of Allow whose TLS the proxy opens;
// its JSON form, which is for an engine that opens none, is without it.
type Policy struct {
	Allow     []Pattern
	Private   []netip.Prefix
	Intercept []Pattern
	Paused    bool // nothing is allowed, for now
}

// errPaused is why nothing is allowed.
var errPaused = errors.New("the bottle's egress is paused")

type policyJSON struct {
	Version int            `json:"version"`
	Paused  bool           `json:"paused,omitempty"`
	Allow   []Pattern      `json:"allow"`
	Private []netip.Prefix `json:"private"`
}

// MarshalJSON is sorted and stable.
func (p Policy) MarshalJSON() ([]byte, error) {
	return json.Marshal(policyJSON{Version: Version, Paused: p.Paused, Allow: sorted(p.Allow), Private: sorted(p.Private)})
}

// sorted is never nil: an empty list is not null.
func sorted[T interface {
	comparable
	fmt.Stringer
}](list []T) []T {
	out := append([]T{}, list...)
	slices.SortFunc(out, func(a, b T) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out)
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
	p.Allow, p.Private, p.Paused = j.Allow, j.Private, j.Paused
	return nil
}

// Decide returns the pattern that allows a host on a port, or an error that
// says why none does. Nothing is looked up: see Permit for addresses.
func (p Policy) Decide(host string, port uint16) (rule string, err error) {
	host, err = NormalizeHost(host)
	if err != nil {
		return "", err
	}
	if p.Paused {
		return "", errPaused
	}
	for _, a := range p.Allow {
		if a.Match(host, port) {
			return a.String(), nil
		}
	}
	if slices.ContainsFunc(p.Allow, func(a Pattern) bool { return a.matchHost(host) }) {
		return "", errors.New(portNotAllowed(host, port))
	}
	return "", errors.New(hostNotAllowed(host))
}

func hostNotAllowed(host string) string { return fmt.Sprintf("host %s is not allowed", host) }
func portNotAllowed(host string, port uint16) string {
	return fmt.Sprintf("port %d of %s is not allowed", port, host)
}

// WantsRule says of a Decision's reason that it was refused because no pattern
// allows it.
func WantsRule(d Decision) bool {
	return d.Verdict == Deny && (d.Reason == hostNotAllowed(d.Host) || d.Reason == portNotAllowed(d.Host, d.Port))
}

// Plain says whether a port of a normalised host was declared, with tcp:, to
// carry something else than TLS.
func (p Policy) Plain(host string, port uint16) bool {
	return slices.ContainsFunc(p.Allow, func(a Pattern) bool { return a.plain && a.Match(host, port) })
}

// Ports are all that any pattern may use, and the web's.
func (p Policy) Ports() []uint16 {
	ports := webPorts()
	for _, a := range p.Allow {
		ports = append(ports, a.Ports()...)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
