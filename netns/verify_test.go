package netns

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"carboy/netns/sysctl"
)

// TestVerifyNames breaks one point after the other, outside carboy's code, and
// wants each of them named at the end.
func TestVerifyNames(t *testing.T) {
	eachPlugins(t, func(t *testing.T, dir string) {
		w := newWorld(t)
		n := w.bottle(t, w.config("abc", dir))
		in := func(ns *os.File, f func() error) func() error { return func() error { return inNamespace(ns, f) } }
		set := func(key, value string) func() error { return func() error { return sysctl.Set(key, value) } }
		nft := func(args ...string) func() error {
			return func() error { return run(append([]string{"nft"}, args...)...) }
		}
		steps := []struct {
			named string
			harm  func() error
		}{
			{"ip_forward is 1", in(n.isolated, set(sysctl.Forward, "1"))},
			{"ip_forward is 1", in(n.egress, set(sysctl.Forward, "1"))},
			{"route to", in(n.isolated, func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.IP(ProxyAddr.AsSlice())}) })},
			{"rp_filter is 0", in(n.egress, set("net/ipv4/conf/all/rp_filter", "0"))},
			{"arp_ignore is 0", in(n.egress, set("net/ipv4/conf/all/arp_ignore", "0"))},
			{"chain output", in(n.egress, nft("insert", "rule", "inet", "carboy", "output", "accept"))},
			{"chain forward", in(n.egress, nft("add", "chain", "inet", "carboy", "forward", "{ policy accept; }"))},
			{"4 chains", in(n.egress, nft("add", "chain", "inet", "carboy", "more"))},
			{"10.5.5.5", in(n.isolated, func() error { return configure("lo", "10.5.5.5/32") })},
			{"10.5.5.6", in(n.egress, func() error { return configure(linkName, "10.5.5.6/32") })},
			{"[eth0 lo more0 more1]", in(n.isolated, func() error {
				return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "more0"}, PeerName: "more1"})
			})},
			{"all/disable_ipv6 is 0", in(n.isolated, set("net/ipv6/conf/all/disable_ipv6", "0"))},
		}
		named := map[string]int{}
		for _, s := range steps {
			must(t, s.harm())
			named[s.named]++
			err := n.Verify()
			for name, times := range named {
				if got := strings.Count(fmt.Sprint(err), name); got < times {
					t.Errorf("%q is there %d times, not %d: %v", name, got, times, err)
				}
			}
		}
	})
}

// TestVerifyWantsItsOwnEgress: the agent's link ends in a namespace that only
// looks right.
func TestVerifyWantsItsOwnEgress(t *testing.T) {
	w := newWorld(t)
	one := w.bottle(t, w.config("one", pluginDirs(t)[0]))
	two := w.bottle(t, w.config("two", pluginDirs(t)[0]))
	one.isolated, two.isolated = two.isolated, one.isolated
	err := one.Verify()
	one.isolated, two.isolated = two.isolated, one.isolated
	if err == nil || !strings.Contains(err.Error(), "ends in namespace") {
		t.Errorf("got %v", err)
	}
}
