package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
)

// Live is the network of a bottle that another process holds, to be looked at
// and not to be changed, by paths of its namespaces, such as /proc/PID/ns/net.
// Of c it takes what the filter lets through. The caller closes it.
func Live(r Record, c Config, isolated, egress string) (_ *Network, err error) {
	n := &Network{Config: c, record: r}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.isolated, err = openNamespace(isolated); err != nil {
		return nil, fmt.Errorf("isolated namespace: %w", err)
	}
	if n.egress, err = openNamespace(egress); err != nil {
		return nil, fmt.Errorf("egress namespace: %w", err)
	}
	return n, nil
}

func openNamespace(path string) (*os.File, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	is, err := isNamespace(ns)
	if err == nil && !is {
		err = fmt.Errorf("%s is no namespace", path)
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// EgressAddrs are the addresses that a bottle has at its link to the host.
func (r Record) EgressAddrs() ([]netip.Addr, error) { return r.egressAddrs() }
