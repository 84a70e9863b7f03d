// Package netns makes the network of one bottle: two network namespaces, the
// CNI links between them and to the host, address translation on the host and
// a filter in the egress namespace. It knows nothing of containers, images or
// the proxy that listens there.
//
// Namespaces are held by file descriptors: there is no file to mount and none
// to forget, and the kernel frees a namespace with its last holder.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"

	"carboy/netns/uplink"
)

// The internal link is the same for every bottle: nothing but the bottle's own
// two namespaces ever sees it.
var (
	// InternalLink is between agent and proxy.
	InternalLink = netip.MustParsePrefix("10.66.0.0/30")
	// ProxyAddr is the proxy's end of the internal link.
	ProxyAddr = netip.MustParseAddr("10.66.0.1")
	// AgentAddr is the agent's end.
	AgentAddr = netip.MustParseAddr("10.66.0.2")
)

// linkName is what CNI calls the link in the namespace that it plugs into.
const linkName = "eth0"

// Config is what a bottle's network is made from.
type Config struct {
	Instance  string         // names every trace of the bottle
	StateDir  string         // on a tmpfs; all that CNI keeps is below it
	PluginDir string         // holds ptp and host-local
	Range     netip.Prefix   // of egress links; zero is the first default that is free
	Reserved  []netip.Prefix // never used
	Conflist  []byte         // the operator's own egress network; nil is ours
	Resolvers []netip.Addr   // whom the proxy may ask for names, IPv4
	Ports     []uint16       // TCP ports the proxy may connect to
	ProxyPort uint16         // where it listens on ProxyAddr
}

// Record is all that Detach needs, known before anything is made.
type Record struct {
	Instance  string `json:"instance"`
	StateDir  string `json:"stateDir"`
	PluginDir string `json:"pluginDir"`
	Internal  string `json:"internal"` // conflists as executed: an operator may change his since
	Egress    string `json:"egress"`
	Own       bool   `json:"own"` // the egress network is carboy's
}

// Network is the network of one bottle, held by this process.
type Network struct {
	Config
	record   Record
	isolated *os.File
	egress   *os.File

	ruling sync.Mutex // of Resolvers and Ports, and the filter that they make
}

var instanceName = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

// New checks a configuration and settles the address range. It reads the host
// and changes nothing.
func New(c Config) (*Network, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	n := &Network{Config: c, record: Record{Instance: c.Instance, StateDir: c.StateDir, PluginDir: c.PluginDir, Own: c.Conflist == nil}}
	n.record.Internal = internalConflist(n.record)
	n.record.Egress = string(c.Conflist)
	if n.record.Own {
		var err error
		if n.Range, err = n.chooseRange(); err != nil {
			return nil, err
		}
		n.record.Egress = egressConflist(n.record, n.Range)
	}
	return n, nil
}

func (n *Network) chooseRange() (netip.Prefix, error) {
	var reserved []uplink.Use
	for _, p := range n.Reserved {
		reserved = append(reserved, uplink.Use{Prefix: p, By: "reserved by the configuration"})
	}
	reserved = append(reserved, uplink.Use{Prefix: InternalLink, By: "the link between agent and proxy"})
	return n.record.shared().ChooseRange(n.Range, reserved)
}

func (c Config) check() error {
	if !instanceName.MatchString(c.Instance) || !filepath.IsAbs(c.StateDir) || !filepath.IsAbs(c.PluginDir) || c.ProxyPort == 0 {
		return fmt.Errorf("network of instance %q in %q with plugins in %q, port %d: %w",
			c.Instance, c.StateDir, c.PluginDir, c.ProxyPort, errdefs.ErrInvalidArgument)
	}
	if c.Instance == "egress" {
		return fmt.Errorf("instance %q: that directory is shared: %w", c.Instance, errdefs.ErrInvalidArgument)
	}
	if i := slices.IndexFunc(c.Resolvers, func(a netip.Addr) bool { return !reachable(a) }); i >= 0 {
		return fmt.Errorf("resolver %s cannot be used from a bottle, which has IPv4 only, its own loopback and no link-local services: name another with --dns: %w",
			c.Resolvers[i], errdefs.ErrInvalidArgument)
	}
	if c.Conflist != nil {
		if _, err := parseConflist(string(c.Conflist)); err != nil {
			return fmt.Errorf("egress %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Record is what Detach needs; it can be stored.
func (n *Network) Record() Record { return n.record }

// Open makes both namespaces, hardened and without any link but loopback. The
// egress filter is in force before the first link appears.
func (n *Network) Open() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.isolated, err = newNamespace(); err != nil {
		return fmt.Errorf("isolated namespace: %w", err)
	}
	if n.egress, err = newNamespace(); err != nil {
		return fmt.Errorf("egress namespace: %w", err)
	}
	if err := n.installFilter(); err != nil {
		return fmt.Errorf("filter in the egress namespace: %w", err)
	}
	return nil
}

// IsolatedPath is the agent's namespace, for as long as this process lives and
// Close was not called.
func (n *Network) IsolatedPath() string { return descriptorPath(n.isolated) }

// EgressPath is the proxy's namespace, likewise.
func (n *Network) EgressPath() string { return descriptorPath(n.egress) }

func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// Close lets go of the namespaces.
func (n *Network) Close() error {
	var errs []error
	for _, f := range []**os.File{&n.isolated, &n.egress} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

// DialProxy connects to the proxy from inside the egress namespace.
func (n *Network) DialProxy(ctx context.Context) (conn net.Conn, err error) {
	address := netip.AddrPortFrom(ProxyAddr, n.ProxyPort).String()
	err = inNamespace(n.egress, func() (err error) {
		var d net.Dialer
		// One literal address: the dialer makes its socket on this thread.
		conn, err = d.DialContext(ctx, "tcp4", address)
		return err
	})
	return conn, err
}

// Traffic counts the bytes of the internal link, both ways.
func (n *Network) Traffic() (count uint64, err error) {
	err = inNamespace(n.isolated, func() error {
		link, err := netlink.LinkByName(linkName)
		if err != nil {
			return fmt.Errorf("find link %s: %w", linkName, err)
		}
		if s := link.Attrs().Statistics; s != nil {
			count = s.RxBytes + s.TxBytes
		}
		return nil
	})
	return count, err
}
