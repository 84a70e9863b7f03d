package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"runtime"
	"slices"
	"sync"
	"time"

	resources "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"carboy/runtime/buildproto"
)

// asker gets the egress network from carboy: once, and only for a build that
// needs it.
type asker struct {
	link    *buildproto.Link
	answers <-chan buildproto.Answer
	once    sync.Mutex
	path    string
}

func (a *asker) namespace(ctx context.Context) (string, error) {
	a.once.Lock()
	defer a.once.Unlock()
	if a.path != "" {
		return a.path, nil
	}
	if err := a.link.Send(buildproto.Ask{Network: true}); err != nil {
		return "", fmt.Errorf("ask for the egress network: %w", err)
	}
	select {
	case answer := <-a.answers:
		if answer.Error != "" {
			return "", fmt.Errorf("network of RUN: %s", answer.Error)
		}
		a.path = answer.Path
		return a.path, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// providers are the networks that a RUN may name. What it does not name is
// what --network says, whoever asks.
func providers(mode string, l limits, ask *asker) map[pb.NetMode]network.Provider {
	none := provider{l, func(context.Context) (string, error) { return "", nil }}
	all := map[pb.NetMode]network.Provider{pb.NetMode_UNSET: none, pb.NetMode_NONE: none}
	switch mode {
	case buildproto.NetworkEgress:
		all[pb.NetMode_UNSET] = provider{l, ask.namespace}
	case buildproto.NetworkHost:
		host := provider{l, func(context.Context) (string, error) { return hostNamespace, nil }}
		all[pb.NetMode_UNSET], all[pb.NetMode_HOST] = host, host
	}
	return all
}

const hostNamespace = "/proc/self/ns/net"

// provider gives a container the namespace that find names; an empty one is
// the container's own, with nothing but loopback.
type provider struct {
	limits
	find func(context.Context) (string, error)
}

func (p provider) New(ctx context.Context, _ string, _ network.NamespaceOptions) (network.Namespace, error) {
	path, err := p.find(ctx)
	return namespace{path, p.limits}, err
}

func (provider) Close() error { return nil }

// cgroupPrefix stands before a container's id.
const cgroupPrefix = "carboy-"

// limits are those of one RUN.
type limits struct{ pids, memory int64 }

type namespace struct {
	path string
	limits
}

// Set also takes away what BuildKit leaves to a container: raw packets pass by
// the filter of the egress namespace, a cgroup below a parent leaves that, and
// what takes all processes or all memory takes everybody's.
func (n namespace) Set(s *specs.Spec) error {
	s.Linux.CgroupsPath = "/" + cgroupPrefix + path.Base(s.Linux.CgroupsPath)
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &n.pids}
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &n.memory}
	if c := s.Process.Capabilities; c != nil {
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
			*set = slices.DeleteFunc(*set, func(name string) bool { return name == "CAP_NET_RAW" })
		}
	}
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
	if n.path != hostNamespace {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: n.path})
	}
	return nil
}

func (namespace) Close() error { return nil }

func (namespace) Sample() (*resources.NetworkSample, error) { return nil, nil }

// fetchTransport is the way of ADD of a URL, which is as much the Dockerfile's
// as RUN and goes where RUN can go.
func fetchTransport(mode string, ask *asker) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	switch mode {
	case buildproto.NetworkEgress:
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			ns, err := ask.namespace(ctx)
			if err != nil {
				return nil, err
			}
			return dialIn(ctx, ns, address)
		}
	case buildproto.NetworkNone:
		t.DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
			return nil, fmt.Errorf("%s: this build has --network none", address)
		}
	}
	return t
}

// dialIn resolves on the host and connects from inside a namespace.
func dialIn(ctx context.Context, ns, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		conn, err := dialOne(ctx, ns, net.JoinHostPort(a.Unmap().String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialOne takes one literal address: the dialer makes its socket on this
// thread, which ends with the goroutine.
func dialOne(ctx context.Context, ns, address string) (net.Conn, error) {
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled, 1)
	go func() {
		runtime.LockOSThread()
		f, err := os.Open(ns)
		if err == nil {
			err = errors.Join(unix.Setns(int(f.Fd()), unix.CLONE_NEWNET), f.Close())
		}
		if err != nil {
			done <- dialled{nil, fmt.Errorf("enter the egress namespace: %w", err)}
			return
		}
		const patience = 30 * time.Second
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp4", address)
		done <- dialled{conn, err}
	}()
	d := <-done
	return d.conn, d.err
}
