package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"carboy/netns/sysctl"
)

// hostLinkAddr is the host's end of every egress link.
const hostLinkAddr = "10.77.0.1"

// sealed is a bottle among everything that it must not reach.
type sealed struct {
	*world
	bottle, other *Network
	targets       map[string]*service // by host:port
	proxy, web    *service
}

func newSealed(t *testing.T, dir string) *sealed {
	w := newWorld(t)
	s := &sealed{world: w, targets: map[string]*service{}}
	s.bottle = w.bottle(t, w.config("one", dir))
	s.other = w.bottle(t, w.config("two", dir))
	s.proxy = serve(t, s.bottle.egress, ProxyAddr.String(), proxyPort)
	s.web = serve(t, w.internet, site, 443)
	add := func(ns *os.File, address string, ports ...uint16) {
		for _, p := range ports {
			s.targets[net.JoinHostPort(address, fmt.Sprint(p))] = serve(t, ns, address, p)
		}
	}
	add(nil, hostAddr, 80, 443, 53)
	add(nil, hostLinkAddr, 80, 53)
	add(nil, hostResolver, 80)
	add(w.internet, site, 22, 53, 8443)
	add(w.internet, metadata, 80, 53)
	add(w.internet, gateway, 22)
	add(s.other.egress, s.address(t, s.other), 80, proxyPort)
	add(s.bottle.egress, ProxyAddr.String(), 9091)
	add(s.bottle.egress, s.address(t, s.bottle), 80)
	return s
}

func (s *sealed) address(t *testing.T, n *Network) string {
	given, err := n.record.reserved()
	must(t, err)
	return given[0].String()
}

func (s *sealed) arrived() (where []string) {
	for address, target := range s.targets {
		if target.arrived.Load() > 0 {
			where = append(where, address)
		}
	}
	return where
}

// try asks all targets from a namespace at once, but those at some addresses.
func (s *sealed) try(ns *os.File, but ...string) {
	var all sync.WaitGroup
	for address := range s.targets {
		at := netip.MustParseAddrPort(address)
		if slices.Contains(but, at.Addr().String()) {
			continue
		}
		all.Go(func() { asks(ns, "tcp", at.Addr().String(), at.Port()) })
		all.Go(func() { asks(ns, "udp", at.Addr().String(), at.Port()) })
	}
	all.Wait()
}

func TestSealHolds(t *testing.T) {
	eachPlugins(t, func(t *testing.T, dir string) {
		s := newSealed(t, dir)
		s.checkTargets(t)
		s.check(t)
		t.Run("without any rule on the host", func(t *testing.T) {
			must(t, run("nft", "flush", "ruleset"))
			s.checkAgent(t)
			if !asks(s.bottle.egress, "tcp", hostLinkAddr, 80) { // control: the rules had been there for something
				t.Error("a port of the host is closed without them")
			}
			s.try(s.bottle.egress, s.address(t, s.bottle), ProxyAddr.String(), hostLinkAddr, hostAddr, hostResolver)
			delete(s.targets, hostLinkAddr+":80")
			if where := s.arrived(); len(where) > 0 {
				t.Errorf("the proxy's namespace reached %v", where)
			}
		})
	})
}

// checkTargets is the positive control: each target can be reached from where
// it is, so that a silent one means something.
func (s *sealed) checkTargets(t *testing.T) {
	var home *os.File
	must(t, onThread(func() (err error) { home, err = os.Open("/proc/thread-self/ns/net"); return err }))
	defer home.Close()
	for address, target := range s.targets {
		at := netip.MustParseAddrPort(address)
		reached := at.Addr().String() == hostLinkAddr // not while the rules are there
		for _, ns := range []*os.File{s.internet, s.other.egress, s.bottle.egress, home} {
			reached = reached || asks(ns, "tcp", at.Addr().String(), at.Port()) && asks(ns, "udp", at.Addr().String(), at.Port())
		}
		if !reached {
			t.Errorf("target %s does not answer to anybody", address)
		}
		target.arrived.Store(0)
	}
}

func (s *sealed) check(t *testing.T) {
	s.checkAgent(t)
	b := s.bottle.egress
	t.Run("proxy", func(t *testing.T) {
		if !asks(b, "tcp", site, 443) {
			t.Error("no way out")
		}
		own := s.address(t, s.bottle)
		s.try(b, own, ProxyAddr.String()) // its own addresses are loopback to it
		if where := s.arrived(); len(where) > 0 {
			t.Errorf("the proxy's namespace reached %v", where)
		}
	})
	t.Run("resolvers", func(t *testing.T) {
		there, here := serve(t, s.internet, resolver, 53), serve(t, nil, hostResolver, 53)
		for _, network := range []string{"udp", "tcp"} {
			if !asks(b, network, resolver, 53) || !asks(b, network, hostResolver, 53) {
				t.Errorf("no answer by %s", network)
			}
		}
		if there.arrived.Load() != 2 || here.arrived.Load() != 2 {
			t.Errorf("%d and %d arrived", there.arrived.Load(), here.arrived.Load())
		}
	})
	t.Run("from outside", func(t *testing.T) {
		// A host that forwards to the range for others, as from its own network.
		must(t, inNamespace(s.internet, func() error {
			return netlink.RouteAdd(&netlink.Route{Dst: parse("10.77.0.0/16").IPNet, Gw: net.ParseIP(hostAddr)})
		}))
		own := s.address(t, s.bottle)
		before := len(s.arrived())
		asks(s.internet, "tcp", own, 80)
		asks(s.internet, "udp", own, 80)
		must(t, onThread(func() error {
			host, err := os.Open("/proc/thread-self/ns/net")
			if err == nil {
				asks(host, "tcp", own, 80)
				asks(host, "udp", own, 80)
				err = host.Close()
			}
			return err
		}))
		if len(s.arrived()) != before {
			t.Errorf("%v reached from outside", s.arrived())
		}
	})
	t.Run("version 6", func(t *testing.T) {
		for _, ns := range []*os.File{s.bottle.isolated, b} {
			err := inNamespace(ns, func() error {
				c, err := net.Dial("udp6", "[ff02::1%eth0]:53")
				if err == nil {
					_, err = c.Write([]byte("?"))
				}
				return err
			})
			if err == nil {
				t.Error("a packet was sent")
			}
		}
	})
}

// checkAgent gives the agent what it never has: routes by its only neighbour.
func (s *sealed) checkAgent(t *testing.T) {
	ns := s.bottle.isolated
	for _, target := range s.targets {
		target.arrived.Store(0)
	}
	s.proxy.arrived.Store(0)
	if !asks(ns, "tcp", ProxyAddr.String(), proxyPort) || s.proxy.arrived.Load() != 1 {
		t.Error("the agent does not reach its proxy")
	}
	if asks(ns, "udp", ProxyAddr.String(), proxyPort) {
		t.Error("the proxy's port answers UDP")
	}
	s.try(ns)
	def := &netlink.Route{Gw: net.ParseIP(ProxyAddr.String())}
	must(t, inNamespace(ns, func() error { return netlink.RouteAdd(def) }))
	s.try(ns)
	// Even where the proxy's namespace forwards, its filter does not.
	must(t, inNamespace(s.bottle.egress, func() error { return sysctl.Set(sysctl.Forward, "1") }))
	s.try(ns)
	must(t, inNamespace(s.bottle.egress, func() error { return sysctl.Set(sysctl.Forward, "0") }))
	must(t, inNamespace(ns, func() error { return netlink.RouteDel(def) }))
	if where := s.arrived(); len(where) > 0 {
		t.Errorf("the agent reached %v", where)
	}
}

// TestFilterIsThereFirst: the rules are complete before a link is.
func TestFilterIsThereFirst(t *testing.T) {
	needRoot(t)
	n, err := New(Config{Instance: "abc", StateDir: t.TempDir(), PluginDir: "/x", ProxyPort: 1, Conflist: []byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"ptp"}]}`)})
	must(t, err)
	must(t, n.Open())
	defer n.Close()
	must(t, n.verifyFilter())
	must(t, inNamespace(n.egress, func() error { return verifyLinks() }))
}

// TestSegmentsFitTheWayOut reads the size that the far end was offered.
func TestSegmentsFitTheWayOut(t *testing.T) {
	w := newWorld(t)
	up, err := netlink.LinkByName("up0")
	must(t, err)
	const mtu = 1300
	must(t, netlink.LinkSetMTU(up, mtu))
	n := w.bottle(t, w.config("abc", pluginDirs(t)[0]))
	var size int
	var l net.Listener
	must(t, inNamespace(w.internet, func() (err error) { l, err = net.Listen("tcp", site+":443"); return err }))
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			raw, _ := c.(*net.TCPConn).SyscallConn()
			_ = raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
			c.Close()
		}
		done <- err
	}()
	asks(n.egress, "tcp", site, 443)
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(time.Second):
		t.Fatal("no connection")
	}
	if size > mtu-40 || size < mtu-60 {
		t.Errorf("segments of %d on a way of %d", size, mtu)
	}
}
