package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sync/errgroup"
)

// cniVersion is the newest that Debian 12's plugins (1.1.1) take.
const cniVersion = "1.0.0"

const (
	internalNetwork = "carboy-internal"
	egressNetwork   = "carboy-egress"
)

func (r Record) dir() string          { return filepath.Join(r.StateDir, r.Instance) }
func (r Record) internalIPAM() string { return filepath.Join(r.dir(), "ipam") }
func (r Record) egressIPAM() string   { return filepath.Join(r.StateDir, "egress", "ipam") }
func (r Record) cacheDir() string     { return filepath.Join(r.dir(), "cni") }

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
		"ranges": [][]object{{{"subnet": internalLink.String()}}},
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

func (r Record) cni() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{r.PluginDir}, r.cacheDir(), nil)
}

func (r Record) runtimeConf(ns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: r.Instance, NetNS: ns, IfName: linkName}
}

// Attach plugs both links. When it fails, Detach removes what it made.
func (n *Network) Attach(ctx context.Context) error {
	if n.record.Own {
		if err := n.enterNAT(ctx); err != nil {
			return fmt.Errorf("address translation on the host: %w", err)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.plug(gctx, n.record.Egress, n.EgressPath()) })
	g.Go(func() error {
		return inNamespace(n.egress, func() error {
			if err := n.plug(gctx, n.record.Internal, n.IsolatedPath()); err != nil {
				return err
			}
			return setSysctl("net/ipv4/ip_forward", "0") // ptp turned it on
		})
	})
	return g.Wait()
}

// plug runs the plugins in the calling thread's namespace.
func (n *Network) plug(ctx context.Context, conflist, ns string) error {
	list, err := libcni.ConfListFromBytes([]byte(conflist))
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	if _, err := n.record.cni().AddNetworkList(ctx, list, n.record.runtimeConf(ns)); err != nil {
		return fmt.Errorf("add network %s with the plugins in %s: %w", list.Name, n.PluginDir, err)
	}
	return nil
}

// unplug runs DEL. With an empty namespace ptp only gives the address back,
// which is right where the link goes with its namespace.
func (r Record) unplug(ctx context.Context, conflist, ns string) error {
	list, err := libcni.ConfListFromBytes([]byte(conflist))
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	if err := r.cni().DelNetworkList(ctx, list, r.runtimeConf(ns)); err != nil {
		return fmt.Errorf("delete network %s: %w", list.Name, err)
	}
	return nil
}

// Detach undoes Attach by its record, from any process and as often as
// needed. It takes every step and joins the errors. Carboy's own links go with
// their namespaces, so whoever holds those lets go first; for an operator's
// network egressNS is the namespace, while something lives in it, or empty.
func Detach(ctx context.Context, r Record, egressNS string) error {
	var errs []error
	if r.Own {
		link := r.hostLink()
		errs = append(errs, r.release(ctx), awaitGone(ctx, link), r.leaveNAT(ctx))
	} else {
		errs = append(errs, r.unplug(ctx, r.Egress, egressNS))
	}
	errs = append(errs, os.RemoveAll(r.internalIPAM()), os.RemoveAll(r.cacheDir()))
	return errors.Join(errs...)
}

// FindPlugins returns the first directory that holds both plugins.
func FindPlugins(dirs []string) (string, error) {
	plugins := []string{"ptp", "host-local"}
	var missing string
	for _, dir := range dirs {
		absent := ""
		for _, p := range plugins {
			if st, err := os.Stat(filepath.Join(dir, p)); err != nil || !st.Mode().IsRegular() {
				absent = p
			}
		}
		if absent == "" {
			return dir, nil
		}
		missing = absent
	}
	return "", fmt.Errorf("CNI plugin %s not found, looked in %s: install it (apt install containernetworking-plugins) or name its directory with --cni-bin-dir: %w",
		missing, strings.Join(dirs, ", "), errdefs.ErrFailedPrecondition)
}
