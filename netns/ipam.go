package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// addresses are the bottle's reservations in host-local's store: one file per
// address, with the container's id in its first line (plugins v1.1.1,
// plugins/ipam/host-local/backend/disk).
func (r Record) addresses() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(r.egressIPAM(), egressNetwork, "*.*.*.*"))
	if err != nil {
		return nil, err
	}
	var own []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		id, _, _ := strings.Cut(string(b), "\n")
		if err == nil && strings.TrimSpace(id) == r.Instance {
			own = append(own, file)
		}
	}
	return own, nil
}

// release gives the egress address back through the plugin, whose lock it
// needs.
func (r Record) release(ctx context.Context) error {
	own, err := r.addresses()
	if err != nil || len(own) == 0 {
		return err // nothing to run a plugin for
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTime)
	defer cancel()
	return r.unplug(ctx, r.Egress, "")
}

// pluginTime bounds one DEL: a plugin that hangs must not hold up the rest.
const pluginTime = 20 * time.Second

// hostLink is the host's end of the egress link: ptp routes the bottle's
// address to it. Nil without one.
func (r Record) hostLink() netlink.Link {
	own, err := r.addresses()
	if err != nil {
		return nil
	}
	for _, file := range own {
		addr, err := netip.ParseAddr(filepath.Base(file))
		if err != nil {
			continue
		}
		dst := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: dst}, netlink.RT_FILTER_DST)
		if err != nil || len(routes) == 0 {
			continue
		}
		if link, err := netlink.LinkByIndex(routes[0].LinkIndex); err == nil && link.Type() == "veth" {
			return link
		}
	}
	return nil
}

// linkTime is how long the kernel may take to drop a dead namespace's links.
const linkTime = time.Second

// awaitGone waits for a link to go with its namespace, and deletes it when
// something still holds that.
func awaitGone(ctx context.Context, link netlink.Link) error {
	if link == nil {
		return nil
	}
	for deadline := time.Now().Add(linkTime); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		now, err := netlink.LinkByIndex(link.Attrs().Index)
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) || err == nil && now.Attrs().Name != link.Attrs().Name {
			return nil
		}
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete link %s: %w", link.Attrs().Name, err)
	}
	return nil
}
