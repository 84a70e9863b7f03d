package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"carboy/netns/links"
)

// reserved are the bottle's addresses in host-local's store: one file per
// address, with the container's id in its first line (plugins v1.1.1 and
// v1.9.1, plugins/ipam/host-local/backend/disk).
func (r Record) reserved() ([]netip.Addr, error) {
	dir := filepath.Join(r.egressIPAM(), egressNetwork)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reserved addresses: %w", err)
	}
	var own []netip.Addr
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue // lock, last_reserved_ip
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // another bottle's, given back meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("reserved addresses: %w", err)
		}
		if id, _, _ := strings.Cut(string(b), "\n"); strings.TrimSpace(id) == r.Instance {
			own = append(own, addr)
		}
	}
	return own, nil
}

// egressAddrs are the addresses that the bottle has at its egress.
func (r Record) egressAddrs() ([]netip.Addr, error) {
	if r.Own {
		return r.reserved()
	}
	return r.plugged()
}

// release gives the egress address back through the plugin, whose lock it
// needs. The internal address has a store of its own, which is removed whole.
func (r Record) release(ctx context.Context) error {
	own, err := r.reserved()
	if err != nil || len(own) == 0 {
		return err // nothing to run a plugin for
	}
	return r.unplug(ctx, r.Egress, "")
}

// hostLink is the host's end of the egress link, nil without one. Its name is
// ptp's choice, so it is found by the route that ptp made to the bottle's
// address, which host-local has on file. An ADD killed before it made the route
// leaves a link that cannot be told from others; it goes with its namespace a
// few milliseconds after the last holder.
func (r Record) hostLink() (netlink.Link, error) {
	given, err := r.reserved()
	if err != nil {
		return nil, err
	}
	for _, addr := range given {
		link, err := links.RoutedTo(addr)
		if link != nil || err != nil {
			return link, err
		}
	}
	return nil, nil
}
