package runtime

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"carboy/netns"
)

// proxyResolvers is the file of the run directory that is the proxy's
// resolv.conf.
const proxyResolvers = "proxy-resolv.conf"

// resolvers are whom a proxy asks for names: those the operator has set, else
// the host's.
func (h *Host) resolvers() ([]netip.Addr, error) {
	if len(h.DNS) > 0 {
		return h.DNS, nil
	}
	return netns.Resolvers("/etc/resolv.conf")
}

// followResolvers: the host's change while bottles live, with a VPN for one.
func (b *Bottle) followResolvers(ctx context.Context) error {
	now, err := b.host.resolvers()
	if err != nil || slices.Equal(now, b.resolvers) {
		return err
	}
	if err := b.network.SetResolvers(ctx, now); err != nil {
		return err
	}
	// In place: what the proxy has is this very file.
	if err := os.WriteFile(filepath.Join(b.dir(), proxyResolvers), resolvConf(now), 0o644); err != nil {
		return err
	}
	b.resolvers = now
	return b.sealed.set(func(s *seal) { s.Resolvers = now })
}

func resolvConf(servers []netip.Addr) []byte {
	var b []byte
	for _, s := range servers {
		b = fmt.Appendf(b, "nameserver %s\n", s)
	}
	return b
}
