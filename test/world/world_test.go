package world

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// client trusts the world's authority.
func client(w *World) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.CA)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
}

func TestServers(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct{ url, server, name string }{
		{"http://allowed.test/x", "internet/http", "allowed.test"},
		{"https://denied.test/x", "internet/https", "denied.test"},
		{"https://evil.test/", "internet/https", "evil.test"},
		{"http://meta.test/", "metadata/http", "meta.test"},
		{"http://private.test/", "lan/http", "private.test"},
		{"http://[" + Internet6 + "]/", "internet/http", "[" + Internet6 + "]"},
	} {
		w.Reset()
		resp, err := client(w).Get(tc.url)
		if err != nil {
			t.Errorf("%s: %v", tc.url, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := "world: " + tc.server + " at"; !strings.HasPrefix(string(body), want) {
			t.Errorf("%s answered %q, want %q", tc.url, body, want)
		}
		got := w.Arrivals(tc.server)
		if len(got) != 1 || len(got[0].Names) == 0 || got[0].Names[0] != tc.name || len(got[0].First) == 0 {
			t.Errorf("%s: arrivals %+v, want one for %s", tc.url, got, tc.name)
		}
	}
}

func TestResolver(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	resolver := &net.Resolver{PreferGo: true}
	if addrs, err := resolver.LookupHost(ctx, "nobody.test"); err == nil {
		t.Errorf("nobody.test = %v, want an error", addrs)
	}
	w.SetName("Rebind.test", netip.MustParseAddr("10.0.0.1"))
	if addrs, err := resolver.LookupHost(ctx, "rebind.test"); err != nil || fmt.Sprint(addrs) != "[10.0.0.1]" {
		t.Errorf("rebind.test = %v, %v", addrs, err)
	}
	if q := strings.Join(w.Queries(), " "); !strings.Contains(q, "nobody.test") || !strings.Contains(q, "rebind.test") {
		t.Errorf("queries %q", q)
	}
}

func TestStreamsAndDatagrams(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct{ network, addr, server string }{
		{"tcp", Allowed + ":22", "internet/tcp"}, {"tcp", Denied + ":8443", "internet/tcp"}, {"tcp", Neighbour + ":22", "lan/tcp"},
		{"tcp", HostAddr + ":7777", "host/tcp"}, {"tcp", "[" + HostAddr6 + "]:7777", "host/tcp"}, {"tcp", HostExtra + ":7777", "host/tcp"},
		{"udp", Allowed + ":9999", "internet/udp"}, {"udp", "[" + Internet6 + "]:9999", "internet/udp"},
		{"udp", Metadata + ":9999", "metadata/udp"}, {"udp", HostLAN + ":9999", "host/udp"},
	} {
		w.Reset()
		c, err := net.DialTimeout(tc.network, tc.addr, 3*time.Second)
		if err != nil {
			t.Errorf("%s %s: %v", tc.network, tc.addr, err)
			continue
		}
		buf := make([]byte, 16)
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		_, werr := c.Write([]byte("hello"))
		n, rerr := c.Read(buf)
		if werr != nil || rerr != nil || string(buf[:n]) != "hello" {
			t.Errorf("%s %s: echo %q, %v, %v", tc.network, tc.addr, buf[:n], werr, rerr)
		}
		_ = c.Close()
		if got := w.Arrivals(tc.server); len(got) != 1 || string(got[0].First) != "hello" {
			t.Errorf("%s %s: arrivals %+v", tc.network, tc.addr, got)
		}
	}
}

// TestPackets sends what no server listens for.
func TestPackets(t *testing.T) {
	w := newWorld(t)
	if c, err := net.DialTimeout("tcp", Allowed+":4444", time.Second); err == nil {
		_ = c.Close()
		t.Fatal("port 4444 is open")
	}
	c, err := net.Dial("udp", Neighbour+":4445")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		place string
		want  Packet
	}{
		{AtInternet, Packet{"inet0", "tcp", netip.MustParseAddr(HostAddr), netip.MustParseAddr(Allowed), 4444}},
		{AtLAN, Packet{"nb0", "udp", netip.MustParseAddr(HostLAN), netip.MustParseAddr(Neighbour), 4445}},
	} {
		found := false
		for _, p := range w.Packets(tc.place) {
			found = found || p.Packet == tc.want
		}
		if !found {
			t.Errorf("packets of %s: %v, want %v", tc.place, w.Packets(tc.place), tc.want)
		}
	}
	w.Reset()
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range w.Packets(AtInternet) {
		if p.Protocol != "arp" && p.Port != markerPort {
			t.Errorf("a packet that nobody sent: %v", p)
		}
	}
}

// TestHidden proves that the machine's own places are not seen.
func TestHidden(t *testing.T) {
	newWorld(t)
	for _, dir := range []string{"/etc/carboy", "/var/log/carboy", "/var/lib/cni", "/root/.config"} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > 1 { // the go command's own may be there
			t.Errorf("%s: %v, %v", dir, entries, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	if err := os.Mkdir("/etc/mine", 0o700); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile("/etc/resolv.conf"); string(b) != resolvConf {
		t.Errorf("resolv.conf: %q, %v", b, err)
	}
	for _, link := range []string{"eth0", "lan0"} {
		if _, err := os.Stat("/sys/class/net/" + link); err != nil {
			t.Error(err)
		}
	}
}

// TestSnapshotSees makes something of each kind that needs no containerd, so
// that an empty difference means something.
func TestSnapshotSees(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	before, err := w.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ subject, do, undo string }{
		{"links", "ip link add leak0 type veth peer name leak1", "ip link del leak0"},
		{"addresses", "ip address add 10.9.9.9/32 dev lo", "ip address del 10.9.9.9/32 dev lo"},
		{"routes", "ip route add 10.8.0.0/16 dev lo table 77", "ip route del 10.8.0.0/16 dev lo table 77"},
		{"rules", "ip rule add from 10.8.0.0/16 table 77", "ip rule del from 10.8.0.0/16 table 77"},
		{"nftables", "nft add table ip leak", "nft delete table ip leak"},
		{"iptables", "iptables-nft -A FORWARD -s 10.8.0.1 -j DROP", "iptables-nft -D FORWARD -s 10.8.0.1 -j DROP"},
		{"iptables", "iptables-legacy -A FORWARD -s 10.8.0.1 -j DROP", "iptables-legacy -D FORWARD -s 10.8.0.1 -j DROP"},
		{"files", "mkdir -p /run/carboy/leak", "rm -r /run/carboy"},
		{"files", "mkdir -p /var/lib/cni/networks && touch /var/lib/cni/networks/10.8.0.1", "rm -r /var/lib/cni/networks"},
		{"files", "mkdir $TMPDIR/containerd-mount1", "rmdir $TMPDIR/containerd-mount1"},
		{"mounts", "mkdir -p /run/leak && mount -t tmpfs leak /run/leak", "umount /run/leak"},
		{"network namespaces", "ip netns add leak", "ip netns del leak; rmdir /run/netns; umount /run/netns; true"},
		{"cgroups", "mkdir $(echo /sys/fs/cgroup/pids /sys/fs/cgroup | cut -d' ' -f1)/leak", "rmdir /sys/fs/cgroup/pids/leak"},
		{"sysctls", "echo 1 > /proc/sys/net/ipv4/ip_forward", "echo 0 > /proc/sys/net/ipv4/ip_forward"},
		{"processes", "sleep 3600 >/dev/null 2>&1 & echo $! >/run/leak.pid", "kill $(cat /run/leak.pid)"},
	} {
		shell(t, tc.do)
		now, err := w.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if diff := Diff(before, now); !strings.Contains(diff, tc.subject+":\n  ") {
			t.Errorf("%s: the difference is %q, want some in %s", tc.do, diff, tc.subject)
		}
		shell(t, tc.undo)
		if strings.HasPrefix(tc.do, "iptables") || tc.subject == "network namespaces" {
			// The first use of these leaves an empty table and a mount point.
			if before, err = w.Snapshot(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if diff, err := w.WaitClean(ctx, before); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", tc.undo, err, diff)
		}
	}
}

// probeResult is a line of the probe's output.
type probeResult struct {
	What, Target, Err string
	OK                bool
	Value             any
}

func parseProbe(t *testing.T, out string) (all []probeResult) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(out))
	for d.More() {
		var r probeResult
		if err := d.Decode(&r); err != nil {
			t.Fatalf("probe said %q: %v", out, err)
		}
		all = append(all, r)
	}
	return all
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
