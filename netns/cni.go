package netns

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"carboy/netns/links"
	"carboy/netns/uplink"
)

// cniVersion is the newest that Debian 12's plugins (1.1.1) take.
const cniVersion = "1.0.0"

const (
	internalNetwork = "carboy-internal"
	egressNetwork   = "carboy-egress"
)

func (r Record) dir() string          { return filepath.Join(r.StateDir, r.Instance) }
func (r Record) internalIPAM() string { return filepath.Join(r.dir(), "ipam") }
func (r Record) egressIPAM() string   { return r.shared().IPAM() }
func (r Record) shared() uplink.Shared {
	return uplink.Shared{Dir: filepath.Join(r.StateDir, "egress")}
}
func (r Record) cacheDir() string { return filepath.Join(r.dir(), "cni") }

// object is JSON; marshalling one of plain values cannot fail.
type object = map[string]any

func conflist(name string, ipam object) string {
	b, _ := json.Marshal(object{
		"cniVersion": cniVersion, "name": name,
		"plugins": []object{{"type": "ptp", "ipMasq": false, "ipam": ipam}},
	})
	return string(b)
}

// internalConflist gives the agent an address and no route beyond the link.
func internalConflist(r Record) string {
	return conflist(internalNetwork, object{
		"type": "host-local", "dataDir": r.internalIPAM(),
		"ranges": [][]object{{{"subnet": InternalLink.String()}}},
	})
}

// egressConflist has no ipMasq: a rule per link would outlive a namespace that
// dies first. The host's one table does it for all.
func egressConflist(r Record, from netip.Prefix) string {
	return conflist(egressNetwork, object{
		"type": "host-local", "dataDir": r.egressIPAM(),
		"ranges": [][]object{{{"subnet": from.String()}}},
		"routes": []object{{"dst": "0.0.0.0/0"}},
	})
}

// OperatorNetwork reads the conflist of that name from a CNI configuration
// directory, for Config.Conflist. Its errors are of class
// errdefs.ErrInvalidArgument.
func OperatorNetwork(dir, name string) ([]byte, error) {
	list, err := libcni.LoadNetworkConf(dir, name)
	if err != nil {
		return nil, fmt.Errorf("egress network %q in %s: %w: %w", name, dir, err, errdefs.ErrInvalidArgument)
	}
	return list.Bytes, nil
}

func (r Record) cni(mark *os.File) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{r.PluginDir}, r.cacheDir(), &runner{mark: mark})
}

func (r Record) runtimeConf(ns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: r.Instance, NetNS: ns, IfName: linkName}
}

func parseConflist(conflist string) (*libcni.NetworkConfigList, error) {
	list, err := libcni.ConfListFromBytes([]byte(conflist))
	if err != nil {
		return nil, fmt.Errorf("network configuration: %w", err)
	}
	return list, nil
}

// plug runs ADD in the calling thread's namespace.
func (r Record) plug(ctx context.Context, conflist, ns string, mark *os.File) error {
	list, err := parseConflist(conflist)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pluginTime, fmt.Errorf("it took longer than %v", pluginTime))
	defer cancel()
	if _, err := r.cni(mark).AddNetworkList(ctx, list, r.runtimeConf(ns)); err != nil {
		return fmt.Errorf("add network %s with the plugins in %s: %w", list.Name, r.PluginDir, err)
	}
	return nil
}

// unplug runs DEL in the host's namespace. Without a namespace ptp only gives
// the address back, which is right where the link goes with its namespace.
func (r Record) unplug(ctx context.Context, conflist, ns string) error {
	list, err := parseConflist(conflist)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTime)
	defer cancel()
	err = onThread(func() error { return r.cni(nil).DelNetworkList(ctx, list, r.runtimeConf(ns)) })
	if err != nil {
		return fmt.Errorf("delete network %s with the plugins in %s: %w", list.Name, r.PluginDir, err)
	}
	return nil
}

// plugged are the addresses that the egress network gave the bottle, by
// libcni's cache: none when its ADD did not end well.
func (r Record) plugged() ([]netip.Addr, error) {
	list, err := parseConflist(r.Egress)
	if err != nil {
		return nil, err
	}
	cached, err := r.cni(nil).GetNetworkListCachedResult(list, r.runtimeConf(""))
	if err != nil || cached == nil {
		return nil, err
	}
	result, err := current.NewResultFromResult(cached)
	if err != nil {
		return nil, fmt.Errorf("result of network %s: %w", list.Name, err)
	}
	var addrs []netip.Addr
	for _, ip := range result.IPs {
		addrs = append(addrs, links.AddrOf(ip.Address.IP))
	}
	return addrs, nil
}
