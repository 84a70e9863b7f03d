package netns

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
)

func hostRange(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func TestRangeLeavesTheInternalLink(t *testing.T) {
	c := valid(t)
	c.Conflist, c.Range = nil, hostRange("10.66.0.0/16")
	if _, err := New(c); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "agent and proxy") {
		t.Errorf("got %v", err)
	}
}

func TestRangeAvoidsTheHost(t *testing.T) {
	w := newWorld(t)
	site := serve(t, w.internet, site, 443)
	// In a table of its own, as VPNs have it; a default route in pieces is none.
	for _, r := range []netlink.Route{
		{Dst: parse("10.77.128.0/17").IPNet, Gw: parse(gateway + "/32").IP, Table: 77},
		{Dst: parse("128.0.0.0/1").IPNet, Gw: parse(gateway + "/32").IP},
	} {
		must(t, netlink.RouteAdd(&r))
		defer func() { must(t, netlink.RouteDel(&r)) }()
	}
	c := w.config("abc", pluginDirs(t)[0])
	c.Reserved = []netip.Prefix{hostRange("172.28.4.0/22")}
	n := w.bottle(t, c)
	if n.Range.String() != "198.18.0.0/16" {
		t.Errorf("range %s", n.Range)
	}
	if !asks(n.egress, "tcp", "93.184.216.34", 443) || site.arrived.Load() != 1 {
		t.Error("no way out")
	}
	c.Instance, c.Reserved = "def", nil
	if second := w.bottle(t, c); second.Range != n.Range {
		t.Errorf("the second has range %s", second.Range)
	}
}

func TestConflists(t *testing.T) {
	r := Record{Instance: "abc", StateDir: "/run/carboy"}
	for got, want := range map[string]string{
		internalConflist(r):                          `{"cniVersion":"1.0.0","name":"carboy-internal","plugins":[{"ipMasq":false,"ipam":{"dataDir":"/run/carboy/abc/ipam","ranges":[[{"subnet":"10.66.0.0/30"}]],"type":"host-local"},"type":"ptp"}]}`,
		egressConflist(r, hostRange("10.77.0.0/16")): `{"cniVersion":"1.0.0","name":"carboy-egress","plugins":[{"ipMasq":false,"ipam":{"dataDir":"/run/carboy/egress/ipam","ranges":[[{"subnet":"10.77.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}],"type":"host-local"},"type":"ptp"}]}`,
	} {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestFindPlugins(t *testing.T) {
	whole, half, none := t.TempDir(), t.TempDir(), t.TempDir()
	for _, file := range []string{whole + "/ptp", whole + "/host-local", half + "/ptp"} {
		if err := os.WriteFile(file, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if dir, err := FindPlugins([]string{none, half, whole}); err != nil || dir != whole {
		t.Errorf("got %q, %v", dir, err)
	}
	_, err := FindPlugins([]string{none, half})
	for _, part := range []string{none + " has no ptp and no host-local", half + " has no host-local", "containernetworking-plugins"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
}

func TestResolvers(t *testing.T) {
	for name, c := range map[string]struct {
		etc, stub string
		want      []string
		fails     string
	}{
		"plain":               {etc: "# x\nsearch a\nnameserver 10.1.1.1\n nameserver\t8.8.8.8 \noptions edns0", want: []string{"10.1.1.1", "8.8.8.8"}},
		"stub":                {etc: "nameserver 127.0.0.53\noptions x", stub: "nameserver 192.0.2.5", want: []string{"192.0.2.5"}},
		"other local cache":   {etc: "nameserver 127.0.0.1", stub: "nameserver 192.0.2.5", fails: "--dns"},
		"mixed":               {etc: "nameserver 127.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.7", want: []string{"192.0.2.7"}},
		"version 6 only":      {etc: "nameserver 2001:db8::1", fails: "2001:db8::1"},
		"a cloud's metadata":  {etc: "nameserver 169.254.169.254", fails: "--dns"},
		"empty":               {etc: "", fails: "--dns"},
		"stub without a file": {etc: "nameserver 127.0.0.53", stub: "-", fails: "--dns"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			etc, stub := filepath.Join(dir, "etc"), filepath.Join(dir, "stub")
			for path, text := range map[string]string{etc: c.etc, stub: c.stub} {
				if text != "-" {
					if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, err := resolvers(etc, stub)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			var text []string
			for _, a := range got {
				text = append(text, a.String())
			}
			if err != nil || !slices.Equal(text, c.want) {
				t.Errorf("got %v, %v", text, err)
			}
		})
	}
	if _, err := resolvers("/nowhere/resolv.conf", ""); err == nil || !strings.Contains(err.Error(), "/nowhere/resolv.conf") {
		t.Errorf("no file: %v", err)
	}
}
