package netns

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"carboy/netns/links"
	"carboy/netns/sysctl"
)

// withoutLast drops what changes with each bottle that comes and goes beside
// one that stays: host-local's last address, and the order of its links.
func withoutLast(snapshot string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(snapshot, "\n"), func(l string) bool {
		return strings.Contains(l, "last_reserved_ip")
	}), "\n")
}

func TestReassert(t *testing.T) {
	w := newWorld(t)
	before := w.snapshot(t)
	site := serve(t, w.internet, site, 443)
	n := w.bottle(t, w.config("abc", pluginDirs(t)[0]))
	up := w.snapshot(t)
	out := func() bool { return asks(n.egress, "tcp", "93.184.216.34", 443) }
	handles := func() string {
		out, err := exec.Command("nft", "-a", "list", "ruleset").Output()
		must(t, err)
		return string(out)
	}
	untouched := handles()
	must(t, n.Reassert(t.Context()))
	if handles() != untouched {
		t.Error("an intact table was written again")
	}
	for name, harm := range map[string][]string{
		"nothing":          {"true"},
		"ruleset flushed":  {"nft", "flush", "ruleset"},
		"table flushed":    {"nft", "flush", "table", "ip", "carboy"},
		"chain flushed":    {"nft", "flush", "chain", "ip", "carboy", "postrouting"},
		"rule added":       {"nft", "insert", "rule", "ip", "carboy", "forward", "accept"},
		"rule replaced":    {"sh", "-c", "nft flush chain ip carboy postrouting && nft add rule ip carboy postrouting ip saddr 10.88.0.0/16 ip daddr != 10.88.0.0/16 masquerade"},
		"policy":           {"nft", "add", "chain", "ip", "carboy", "forward", "{ policy drop; }"},
		"chain of another": {"nft", "add", "chain", "ip", "carboy", "zzz"},
	} {
		must(t, run(harm...))
		if damaged := w.snapshot(t) != up; damaged == (name == "nothing") {
			t.Errorf("%s: damaged %v", name, damaged)
		}
		must(t, n.Reassert(t.Context()))
		unchanged(t, name, up, w.snapshot(t))
		site.arrived.Store(0)
		if !out() || site.arrived.Load() != 1 {
			t.Errorf("%s: no way out", name)
		}
	}
	must(t, sysctl.Set(sysctl.Forward, "0")) // an operator's decision
	must(t, n.Reassert(t.Context()))
	if now, err := sysctl.Get(sysctl.Forward); err != nil || now != "0" {
		t.Errorf("forwarding is %s, %v", now, err)
	}
	must(t, n.down())
	must(t, n.Reassert(t.Context()))
	unchanged(t, "down", before, w.snapshot(t))
}

// TestResolversOfAll: a later bottle may ask another resolver of the host.
func TestResolversOfAll(t *testing.T) {
	w := newWorld(t)
	c := w.config("one", pluginDirs(t)[0])
	c.Resolvers = nil
	w.bottle(t, c)
	n := w.bottle(t, w.config("two", pluginDirs(t)[0]))
	dns := serve(t, nil, hostResolver, 53)
	if !asks(n.egress, "udp", hostResolver, 53) || dns.arrived.Load() != 1 {
		t.Error("no answer")
	}
}

func TestForwarding(t *testing.T) {
	w := newWorld(t)
	dir := pluginDirs(t)[0]
	lan, err := newNamespace()
	must(t, err)
	defer lan.Close()
	must(t, connect("lan0", lan, "192.168.77.1/24", "192.168.77.2/24"))
	route := func(ns *os.File, to, by string) {
		must(t, inNamespace(ns, func() error {
			return netlink.RouteAdd(&netlink.Route{Dst: parse(to).IPNet, Gw: net.ParseIP(by)})
		}))
	}
	route(lan, "203.0.113.0/24", "192.168.77.1")
	route(w.internet, "192.168.77.0/24", hostAddr)
	far := serve(t, w.internet, gateway, 80)
	across := func() bool { return asks(lan, "tcp", gateway, 80) }

	must(t, sysctl.Set("net/ipv4/conf/lan0/forwarding", "0"))
	must(t, sysctl.Set("net/ipv4/conf/up0/forwarding", "1"))
	before := w.snapshot(t)
	if across() {
		t.Error("forwards before")
	}
	n := w.bottle(t, w.config("abc", dir))
	if now, _ := sysctl.Get(sysctl.Forward); now != "1" {
		t.Error("the plugin is expected to turn forwarding on")
	}
	if across() || far.arrived.Load() > 0 {
		t.Error("the host has become a router")
	}
	must(t, n.down())
	unchanged(t, "no router", before, w.snapshot(t))

	must(t, sysctl.Set(sysctl.Forward, "1")) // control: a router stays one
	before = w.snapshot(t)
	n = w.bottle(t, w.config("def", dir))
	if !across() || far.arrived.Load() != 1 {
		t.Error("a router stops being one")
	}
	must(t, n.down())
	unchanged(t, "router", before, w.snapshot(t))
}

func TestForeignFirewall(t *testing.T) {
	const firewalld = "nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD { type filter hook forward priority 10 \\; }; " +
		"nft add rule inet firewalld filter_FORWARD iifname lo accept; nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited"
	for name, f := range map[string]struct{ setUp, flush, after string }{
		"policy":         {setUp: "iptables-nft -P FORWARD DROP", flush: "iptables-nft -F FORWARD"},
		"docker":         {setUp: "iptables-nft -N DOCKER-USER; iptables-nft -I FORWARD -j DOCKER-USER; iptables-nft -P FORWARD DROP", flush: "iptables-nft -F DOCKER-USER"},
		"policy opened":  {setUp: "iptables-nft -P FORWARD DROP", flush: "iptables-nft -F FORWARD", after: "iptables-nft -P FORWARD ACCEPT"},
		"legacy":         {setUp: "iptables-legacy -P FORWARD DROP", flush: "iptables-legacy -F FORWARD", after: "iptables-legacy -P FORWARD ACCEPT"},
		"nftables":       {setUp: "nft add table inet filter; nft add chain inet filter forward { type filter hook forward priority 0 \\; policy drop \\; }", flush: "nft flush chain inet filter forward"},
		"firewalld":      {setUp: firewalld, flush: "nft delete table inet firewalld; " + firewalld},
		"firewalld gone": {setUp: firewalld, flush: "nft delete table inet firewalld; " + firewalld, after: "nft delete table inet firewalld"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			must(t, run("sh", "-ec", f.setUp))
			defer func() { _ = run("iptables-legacy", "-P", "FORWARD", "ACCEPT") }()
			site := serve(t, w.internet, site, 443)
			before := w.snapshot(t)
			n := w.bottle(t, w.config("abc", pluginDirs(t)[0]))
			second := w.bottle(t, w.config("def", pluginDirs(t)[0]))
			if !asks(n.egress, "tcp", "93.184.216.34", 443) || !asks(second.egress, "tcp", "93.184.216.34", 443) || site.arrived.Load() != 2 {
				t.Errorf("no way out:\n%s", rules(t))
			}
			up := rules(t)
			if got := strings.Count(up, "10.77.0.0/16") - strings.Count(carboyTable(t), "10.77.0.0/16"); got != 2 {
				t.Errorf("%d rules for two bottles:\n%s", got, up)
			}
			began := time.Now()
			must(t, n.Reassert(t.Context()))
			t.Logf("nothing to put back: %s", time.Since(began))
			must(t, run("sh", "-ec", f.flush))
			if asks(n.egress, "tcp", "93.184.216.34", 443) { // control
				t.Error("a way out without the rules")
			}
			must(t, n.Reassert(t.Context()))
			if again := rules(t); sorted(again) != sorted(up) {
				t.Errorf("not put back:\n%s", again)
			}
			must(t, second.down())
			must(t, run("sh", "-ec", f.after))
			must(t, n.down())
			if f.after == "" {
				unchanged(t, "down", before, w.snapshot(t))
			} else if strings.Contains(rules(t), "10.77") {
				t.Errorf("rules stay:\n%s", rules(t))
			}
		})
	}
}

func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func carboyTable(t *testing.T) string {
	t.Helper()
	text := rules(t)
	_, text, _ = strings.Cut(text, "table ip carboy {")
	text, _, _ = strings.Cut(text, "\n}")
	return text
}

// TestWithoutIptables: a host of nft only, or none, is served all the same.
func TestWithoutIptables(t *testing.T) {
	w := newWorld(t)
	must(t, run("iptables-nft", "-P", "FORWARD", "DROP"))
	t.Setenv("PATH", "/nowhere")
	n, err := New(w.config("abc", pluginDirs(t)[0]))
	must(t, err)
	must(t, n.Open())
	must(t, n.Attach(t.Context()))
	must(t, n.down())
}

// TestTracesOfAKilledLast: a first bottle finds what a last one left when it
// was killed between being counted out and restoring the host.
func TestTracesOfAKilledLast(t *testing.T) {
	w := newWorld(t)
	must(t, run("iptables-nft", "-P", "FORWARD", "DROP"))
	dropping := w.snapshot(t)
	dir := pluginDirs(t)[0]
	n, err := New(w.config("abc", dir))
	must(t, err)
	must(t, n.Open())
	must(t, n.Attach(t.Context()))
	must(t, os.Remove(filepath.Join(w.stateDir, "egress", "users", "abc")))
	must(t, n.Close())
	link, err := n.record.hostLink()
	must(t, err)
	must(t, links.AwaitGone(t.Context(), link))

	c := w.config("def", dir)
	c.Range = hostRange("10.88.0.0/16")
	second := w.bottle(t, c)
	if strings.Contains(rules(t), "10.77") {
		t.Errorf("rules of the former range stay:\n%s", rules(t))
	}
	must(t, second.down())
	must(t, Detach(t.Context(), n.Record(), ""))
	unchanged(t, "down", dropping, w.snapshot(t))
}

func TestOtherRangeIsRefused(t *testing.T) {
	w := newWorld(t)
	w.bottle(t, w.config("abc", pluginDirs(t)[0]))
	c := w.config("def", pluginDirs(t)[0])
	c.Range = hostRange("10.88.0.0/16")
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "10.77.0.0/16") {
		t.Errorf("got %v", err)
	}
	late, err := New(w.config("ghi", pluginDirs(t)[0]))
	must(t, err)
	late.Range = c.Range // as if the others had come in between
	must(t, late.Open())
	defer late.Close()
	before := w.snapshot(t)
	if err := late.Attach(t.Context()); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("got %v", err)
	}
	unchanged(t, "refused", before, w.snapshot(t))
}

// operator is a conflist whose masquerading needs DEL while the namespace lives.
const operator = `{"cniVersion":"1.0.0","name":"corp","plugins":[{"type":"ptp","ipMasq":true,
"ipam":{"type":"host-local","dataDir":"%s","ranges":[[{"subnet":"10.99.1.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`

func TestOperatorsNetwork(t *testing.T) {
	eachPlugins(t, func(t *testing.T, dir string) {
		w := newWorld(t)
		must(t, run("iptables-nft", "-t", "nat", "-N", "X"))
		must(t, run("iptables-nft", "-t", "nat", "-I", "POSTROUTING", "-j", "X"))
		ipam := filepath.Join("/run", fmt.Sprintf("corp%d", worlds.Add(1)))
		c := w.config("abc", dir)
		c.Conflist = fmt.Appendf(nil, operator, ipam)
		n, err := New(c)
		must(t, err)
		must(t, n.Open())
		before := rules(t)
		must(t, n.Attach(t.Context()))
		must(t, n.Verify())
		must(t, n.Reassert(t.Context()))
		if strings.Contains(rules(t), "carboy-") || !strings.Contains(rules(t), "10.99.1.") {
			t.Errorf("rules:\n%s", rules(t))
		}
		web := serve(t, w.internet, site, 443)
		if !asks(n.egress, "tcp", site, 443) || web.arrived.Load() != 1 {
			t.Error("no way out")
		}
		must(t, Detach(t.Context(), n.Record(), n.EgressPath()))
		must(t, n.Close())
		if sorted(rules(t)) != sorted(before) {
			t.Errorf("rules stay:\n%s", rules(t))
		}
		if left, _ := filepath.Glob(ipam + "/corp/10.*"); len(left) > 0 {
			t.Errorf("reservations stay: %v", left)
		}
		if left, err := os.ReadDir(w.stateDir); err != nil || len(left) > 0 {
			t.Errorf("files stay: %v, %v", left, err)
		}
	})
}

// TestStrangersNamespace: a process id that was used again names another
// bottle's namespace, or the host's.
func TestStrangersNamespace(t *testing.T) {
	w := newWorld(t)
	dir := pluginDirs(t)[0]
	up, err := netlink.LinkByName("up0")
	must(t, err)
	must(t, netlink.LinkSetDown(up))
	must(t, netlink.LinkSetName(up, linkName)) // the name that DEL looks for
	must(t, netlink.LinkSetUp(up))
	defer func() { must(t, netlink.LinkSetDown(up)); must(t, netlink.LinkSetName(up, "up0")) }()
	stranger := w.bottle(t, w.config("str", dir))
	for i, path := range []string{"/proc/self/ns/net", stranger.EgressPath(), "/proc/self/exe", "/nowhere"} {
		c := w.config(fmt.Sprintf("abc%d", i), dir)
		c.Conflist = fmt.Appendf(nil, operator, "/run/corp")
		n, err := New(c)
		must(t, err)
		must(t, n.Open())
		must(t, n.Attach(t.Context()))
		must(t, n.Close())
		must(t, Detach(t.Context(), n.Record(), path))
		must(t, stranger.Verify())
		if _, err := netlink.LinkByName(linkName); err != nil {
			t.Errorf("%s: the host's link is gone: %v", path, err)
		}
	}
}
