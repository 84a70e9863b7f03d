package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// resolvedConf lists the servers behind systemd-resolved's stub.
const resolvedConf = "/run/systemd/resolve/resolv.conf"

// Resolvers reads the servers that a proxy can ask from a resolv.conf, or from
// systemd-resolved's own where that lists its stub only.
func Resolvers(path string) ([]netip.Addr, error) {
	return resolvers(path, resolvedConf)
}

func resolvers(path, behindStub string) ([]netip.Addr, error) {
	listed, err := nameservers(path)
	if err == nil && len(listed) > 0 && !slices.ContainsFunc(listed, func(a netip.Addr) bool { return !slices.Contains(stubs, a) }) {
		path = behindStub
		listed, err = nameservers(path)
	}
	if err != nil {
		return nil, fmt.Errorf("resolvers of the host: %w (or name one with --dns)", err)
	}
	usable := slices.DeleteFunc(slices.Clone(listed), func(a netip.Addr) bool { return !reachable(a) })
	if len(usable) == 0 {
		return nil, fmt.Errorf("%s names no resolver that a bottle's proxy can reach (IPv4, neither loopback nor link-local), only %v: name one with --dns: %w",
			path, listed, errdefs.ErrFailedPrecondition)
	}
	return usable, nil
}

// SetResolvers lets the proxy ask others for names, from now on.
func (n *Network) SetResolvers(ctx context.Context, servers []netip.Addr) error {
	err := n.changeRules(func(c *Config) { c.Resolvers = servers })
	if err != nil {
		return err
	}
	if !n.record.Own {
		return nil
	}
	return n.record.shared().SetResolvers(ctx, n.Instance, servers)
}

// SetPorts lets the proxy connect to other ports, from now on. Connections that
// are there stay: see EndConnections.
func (n *Network) SetPorts(ports []uint16) error {
	return n.changeRules(func(c *Config) { c.Ports = ports })
}

func (n *Network) changeRules(change func(*Config)) error {
	n.ruling.Lock()
	defer n.ruling.Unlock()
	changed := n.Config
	change(&changed)
	if err := changed.check(); err != nil {
		return err
	}
	n.Config = changed
	if err := errors.Join(n.installFilter(), n.compareFilter()); err != nil {
		return fmt.Errorf("filter in the egress namespace: %w", err)
	}
	return nil
}

// stubs are systemd-resolved's addresses.
var stubs = []netip.Addr{netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("127.0.0.54")}

// reachable says whether a proxy can ask a resolver: its namespace has no IPv6,
// a loopback of its own, and never gets to 169.254.0.0/16, where clouds serve
// their secrets beside names.
func reachable(a netip.Addr) bool {
	return a.Is4() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsUnspecified() && !a.IsMulticast()
}

func nameservers(path string) ([]netip.Addr, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var servers []netip.Addr
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, a)
		}
	}
	return servers, nil
}
