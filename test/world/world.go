// Package world is a private host for the host tests, the demo and the
// benchmarks: a machine inside the machine with namespaces, mounts and cgroups
// of its own, an Internet and a neighbour to reach, a containerd, and the means
// to compare the host with before. It is no part of what ships.
//
// A program calls Enter first, then New. Whatever is started inside ends with
// the program, however that ends.
package world

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"sync"
)

// Addresses of the private host and of what surrounds it.
const (
	HostAddr    = "203.0.113.2" // eth0
	HostAddr6   = "2001:db8:113::2"
	HostLAN     = "192.168.77.1" // lan0
	HostExtra   = "10.99.99.99"  // on the loopback link
	Gateway     = "203.0.113.1"
	Gateway6    = "2001:db8:113::1"
	Allowed     = "93.184.216.34"
	Denied      = "93.184.216.35"
	Internet6   = "2001:db8:93::34"
	Resolver    = "8.8.8.8"
	Metadata    = "169.254.169.254"
	Neighbour   = "192.168.77.2"
	HostTCPPort = 7777
	HostUDPPort = 9999 // of the Internet as well
)

// Names are the places whose packets are counted.
const (
	AtHost     = "host"
	AtInternet = "internet"
	AtLAN      = "lan"
)

// Config is what may differ between worlds.
type Config struct {
	// Dir is on disk and holds containerd's root. Empty means a temporary one,
	// removed by Close.
	Dir string
	// Forward is the host's ip_forward at first.
	Forward bool
	// Names are served by the Internet's resolver beside the usual ones.
	Names map[string]netip.Addr
}

// World is a private host with its surroundings. Its methods are safe for
// concurrent use.
type World struct {
	// CA signs the certificates of every HTTPS server, in PEM.
	CA []byte

	dir      string
	ownDir   bool
	spaces   map[string]*namespace
	packets  map[string]*sniffer
	arrivals ledger
	zone     zone
	tls      *tls.Config
	web      *http.ServeMux

	mu          sync.Mutex
	closers     []func() error
	containerds []*Containerd
}

// New builds the surroundings of the private host that the process has entered.
// There can be one at a time. The caller closes it.
func New(ctx context.Context, config Config) (_ *World, err error) {
	if !Inside() {
		return nil, errors.New("new world: this is the machine's own host: call world.Enter first")
	}
	w := &World{dir: config.Dir, spaces: map[string]*namespace{}, packets: map[string]*sniffer{}, web: usual()}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("new world: %w", err), w.Close())
		}
	}()
	if w.dir == "" {
		if w.dir, err = os.MkdirTemp("", "world-"); err != nil {
			return nil, err
		}
		w.ownDir = true
	}
	w.zone.fill(config.Names)
	if err := w.connect(ctx, config.Forward); err != nil {
		return nil, err
	}
	if err := w.sniff(); err != nil {
		return nil, err
	}
	if err := w.serve(ctx); err != nil {
		return nil, err
	}
	// The first packets may wait a second for the neighbour's address.
	if err := w.Settle(ctx); err != nil {
		return nil, err
	}
	w.Reset()
	return w, nil
}

// Close stops the containerds and servers and takes the surroundings away. What
// runs in containers is left to the end of the private host.
func (w *World) Close() error {
	w.mu.Lock()
	closers, containerds := w.closers, w.containerds
	w.closers, w.containerds = nil, nil
	w.mu.Unlock()

	var errs []error
	for _, c := range containerds {
		errs = append(errs, c.Kill())
	}
	for i := range closers {
		errs = append(errs, closers[len(closers)-1-i]())
	}
	if w.ownDir {
		errs = append(errs, unmountBelow(w.dir), os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

// onClose runs f at Close, last one first.
func (w *World) onClose(f func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, f)
}
