package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"carboy/netns/links"
	"carboy/netns/sysctl"
)

// The tests' host: an uplink to an Internet that has no route back to private
// addresses, so that nothing answers without NAT, and a resolver of its own.
const (
	hostAddr     = "203.0.113.2"
	hostResolver = "10.99.99.99"
	gateway      = "203.0.113.1"
	site         = "93.184.216.34"
	resolver     = "8.8.8.8"
	metadata     = "169.254.169.254"
	host6        = "2001:db8:113::2"
	proxyPort    = 8888
)

type world struct {
	internet *os.File
	stateDir string
}

// newWorld makes the host anew: links, rules and switches of the test before
// are gone.
func newWorld(t testing.TB) *world {
	t.Helper()
	needRoot(t)
	w := &world{stateDir: filepath.Join("/run", fmt.Sprintf("carboy%d", worlds.Add(1)))}
	var err error
	if w.internet, err = newNamespace(); err != nil {
		t.Fatal(err)
	}
	must(t, os.MkdirAll(w.stateDir, 0o700))
	must(t, sysctl.Set(sysctl.Forward, "0"))
	must(t, sysctl.Set("net/ipv4/conf/all/accept_redirects", "0"))
	must(t, sysctl.Set("net/ipv6/conf/all/disable_ipv6", "0"))
	must(t, connect("lo", w.internet, hostResolver+"/32", site+"/32", resolver+"/32", metadata+"/32"))
	must(t, connect("up0", w.internet, hostAddr+"/24", gateway+"/24"))
	must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}))
	t.Cleanup(func() {
		must(t, links.DeleteAll())
		must(t, netlink.AddrDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}, parse(hostResolver+"/32")))
		must(t, run("nft", "flush", "ruleset"))
		w.internet.Close()
	})
	return w
}

var worlds atomic.Int64

func parse(addr string) *netlink.Addr {
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		panic(err)
	}
	a.Flags = unix.IFA_F_NODAD
	return a
}

// connect gives a link of the host its address and the same link in another
// namespace all others; it makes the pair unless it is loopback.
func connect(name string, there *os.File, here string, others ...string) error {
	if name != "lo" {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: netlink.NsFd(there.Fd())}
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
	}
	if err := configure(name, here); err != nil {
		return err
	}
	return inNamespace(there, func() error { return configure(name, others...) })
}

func configure(name string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := netlink.AddrAdd(link, parse(a)); err != nil {
			return fmt.Errorf("address %s on %s: %w", a, name, err)
		}
	}
	return netlink.LinkSetUp(link)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return nil
}

// snapshot is all of the host that a bottle might leave a trace in.
func (w *world) snapshot(t testing.TB) string {
	t.Helper()
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	all, err := links.Listed(netlink.LinkList)
	must(t, err)
	for _, l := range all {
		held, err := links.Addrs(l)
		must(t, err)
		// The kernel makes link-local addresses when it gets to it.
		held = slices.DeleteFunc(held, func(a string) bool { return strings.HasPrefix(a, "fe80:") })
		add("link %s %s %v", l.Attrs().Name, l.Type(), held)
	}
	routes, err := links.Listed(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	must(t, err)
	for _, r := range routes {
		add("route of table %d: %s", r.Table, r)
	}
	must(t, filepath.WalkDir(w.stateDir, func(path string, _ fs.DirEntry, err error) error {
		add("file %s", path)
		return err
	}))
	for _, path := range []string{"conf/*/forwarding", "conf/*/accept_redirects", "conf/*/rp_filter", "ip_forward"} {
		files, err := filepath.Glob("/proc/sys/net/ipv4/" + path)
		must(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			if !errors.Is(err, fs.ErrNotExist) { // the link is just going
				must(t, err)
			}
			add("%s %s", f, b)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + rules(t)
}

// rules are those of both firewalls, without what counts.
func rules(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "-s", "list", "ruleset").Output()
	must(t, err)
	legacy, err := exec.Command("sh", "-c", "iptables-legacy-save | grep ^-").Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return "\n" + string(out) + string(legacy)
}

func unchanged(t testing.TB, what, before, after string) {
	t.Helper()
	if before != after {
		t.Errorf("%s: the host is not as before:\n--- before\n%s\n--- after\n%s", what, before, after)
	}
}

func (w *world) config(instance, plugins string) Config {
	return Config{
		Instance: instance, StateDir: w.stateDir, PluginDir: plugins, ProxyPort: proxyPort,
		Resolvers: []netip.Addr{netip.MustParseAddr(resolver), netip.MustParseAddr(hostResolver)}, Ports: []uint16{80, 443},
	}
}

// bottle is up and verified, and goes with the test.
func (w *world) bottle(t testing.TB, c Config) *Network {
	t.Helper()
	n, err := New(c)
	must(t, err)
	must(t, n.Open())
	t.Cleanup(func() { must(t, errors.Join(n.Close(), Detach(context.Background(), n.Record(), ""))) })
	must(t, n.Attach(t.Context()))
	must(t, n.Verify())
	return n
}

func (n *Network) down() error {
	return errors.Join(n.Close(), Detach(context.Background(), n.Record(), ""))
}

// service counts what arrives at one address and answers it.
type service struct{ arrived atomic.Int64 }

// serve listens on TCP and UDP in a namespace, nil for the host's, for as long
// as the test runs.
func serve(t testing.TB, ns *os.File, address string, port uint16) *service {
	t.Helper()
	s := &service{}
	at := net.JoinHostPort(address, fmt.Sprint(port))
	listen := func() error {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", at)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		t.Cleanup(func() { l.Close(); p.Close() })
		go s.stream(l)
		go s.packets(p)
		return nil
	}
	if ns == nil {
		must(t, listen())
	} else {
		must(t, inNamespace(ns, listen))
	}
	return s
}

func (s *service) stream(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.arrived.Add(1)
		_, _ = c.Write([]byte("x"))
		c.Close()
	}
}

func (s *service) packets(p net.PacketConn) {
	for b := make([]byte, 9); ; {
		_, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		s.arrived.Add(1)
		_, _ = p.WriteTo([]byte("x"), from)
	}
}

// patience is how long an answer may take where none is expected.
const patience = 200 * time.Millisecond

// asks says whether a service answers from inside a namespace.
func asks(ns *os.File, network, address string, port uint16) bool {
	return asksWithin(patience, ns, network, address, port)
}

func asksWithin(limit time.Duration, ns *os.File, network, address string, port uint16) bool {
	err := inNamespace(ns, func() error {
		d := net.Dialer{Timeout: limit}
		c, err := d.Dial(network, net.JoinHostPort(address, fmt.Sprint(port)))
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(limit))
		if strings.HasPrefix(network, "udp") {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
		_, err = c.Read(make([]byte, 9))
		return err
	})
	return err == nil
}

// await waits for a condition.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two seconds", what)
		}
	}
}

func eachPlugins(t *testing.T, f func(t *testing.T, dir string)) {
	needRoot(t)
	for _, dir := range pluginDirs(t) {
		t.Run(pluginName(dir), func(t *testing.T) { f(t, dir) })
	}
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}
