package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/util/grpcerrors"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"carboy/runtime/buildproto"
)

// serve is the controller half.
func serve(ctx context.Context, link *buildproto.Link) error {
	var c buildproto.Controller
	if err := link.Receive(&c); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	answers := make(chan buildproto.Answer)
	ctx, cancel := untilEnd(ctx, func() error {
		var a buildproto.Answer
		if err := link.Receive(&a); err != nil {
			return err
		}
		answers <- a
		return nil
	})
	defer cancel()
	pruned, err := work(namespaces.WithNamespace(ctx, c.Namespace), c, &asker{link: link, answers: answers})
	last := buildproto.Ask{Done: true, Pruned: pruned}
	if err != nil {
		last.Error = err.Error()
	}
	if ctx.Err() != nil {
		return nil // nobody listens
	}
	return link.Send(last)
}

// work holds the cache's lock for all that it does.
func work(ctx context.Context, c buildproto.Controller, ask *asker) (pruned int64, err error) {
	// Files for containers are made with the modes that are asked for.
	unix.Umask(0)
	own, err := lock(ctx, c.Root, c.Work != buildproto.WorkSweep)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return 0, nil // whoever works there has swept
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	client, err := containerd.New(c.Address, containerd.WithDefaultNamespace(c.Namespace))
	if err != nil {
		return 0, fmt.Errorf("containerd at %s does not answer: %w", c.Address, err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	m := marker{filepath.Join(c.Root, buildproto.RunningFile), c.Boot}
	left, crashed, err := m.look()
	if err != nil || !left && c.Work == buildproto.WorkSweep {
		return 0, err
	}
	if left {
		if err := sweep(ctx, client, c.Root); err != nil {
			return 0, fmt.Errorf("remove what a build left that was killed: %w", err)
		}
	}
	if err := prepareRoot(c.Root, m, crashed); err != nil {
		return 0, err
	}
	k, err := newBuildkit(ctx, c, client, ask)
	if err != nil {
		return 0, err
	}
	if err := k.restore(ctx, m, left, crashed); err != nil {
		return 0, errors.Join(err, k.close(ctx))
	}
	pruned, err = k.work(ctx, c)
	if closeErr := errors.Join(k.close(ctx), k.unsynced.sync()); closeErr != nil {
		return pruned, errors.Join(err, closeErr)
	}
	return pruned, errors.Join(err, m.remove())
}

// restore puts the cache in order where the one before did not come to its end.
func (k *buildkit) restore(ctx context.Context, m marker, left, crashed bool) error {
	if left {
		if err := k.dropLost(ctx); err != nil {
			return err
		}
	}
	if !crashed {
		return nil
	}
	if _, err := k.prune(ctx, 0); err != nil {
		return err
	}
	return m.set()
}

func (k *buildkit) work(ctx context.Context, c buildproto.Controller) (pruned int64, err error) {
	due := c.Work == buildproto.WorkPrune
	if c.Work == buildproto.WorkBuild {
		due, err = k.serveBuild(ctx, c)
	}
	if due && err == nil && ctx.Err() == nil {
		pruned, err = k.prune(ctx, c.Keep)
	}
	return pruned, err
}

// prepareRoot marks it as in use, unless that of a crash stands there still,
// and leads temporary mounts to where sweep finds them.
func prepareRoot(root string, m marker, crashed bool) error {
	tmp := filepath.Join(root, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	if !crashed {
		if err := m.set(); err != nil {
			return err
		}
	}
	return errors.Join(mount.SetTempMountLocation(tmp), os.Setenv("TMPDIR", tmp), setPath(filepath.Join(tmp, "bin")))
}

// setPath leaves one program of the host to be run for a Dockerfile, and not
// git for one: ADD takes an archive that it cannot unpack for a plain file.
func setPath(dir string) error {
	const xz = "/usr/bin/xz"
	link := filepath.Join(dir, filepath.Base(xz))
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.RemoveAll(link)); err != nil {
		return err
	}
	return errors.Join(os.Symlink(xz, link), os.Setenv("PATH", dir))
}

// lock waits for other builds with the same cache, where it is to, and says so.
func lock(ctx context.Context, root string, wait bool) (*os.File, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the build cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(root, buildproto.LockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the build cache: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) && wait {
		fmt.Fprintln(os.Stderr, "carboy: another build is under way: waiting for it")
		err = waitFlock(ctx, f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock of the build cache: %w", err), f.Close())
	}
	return f, nil
}

func waitFlock(ctx context.Context, f *os.File) error {
	got := make(chan error, 1)
	go func() { got <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }()
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return context.Cause(ctx) // the process ends, and with it the waiting
	}
}

// serveWire answers the one client until it has gone, or ctx ends.
func (k *buildkit) serveWire(ctx context.Context) error {
	conn, err := buildproto.Inherited(buildproto.WireFD)
	if err != nil {
		return err
	}
	wire := &wire{conn: make(chan net.Conn, 1), gone: make(chan struct{})}
	wire.conn <- &closing{Conn: conn, closed: func() { wire.end() }}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
		grpc.WaitForHandlers(true),
	)
	controlapi.RegisterControlServer(server, gate{controller: k.controller, network: k.network, invoker: k.invoker})
	served := make(chan error, 1)
	go func() { served <- server.Serve(wire) }()
	select {
	case <-ctx.Done():
	case <-wire.gone:
	}
	server.Stop()
	if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve the build's client: %w", err)
	}
	return context.Cause(ctx)
}

// wire is a listener of one connection.
type wire struct {
	conn chan net.Conn
	gone chan struct{}
	once sync.Once
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conn:
		return c, nil
	case <-w.gone:
		return nil, net.ErrClosed
	}
}

func (w *wire) end() { w.once.Do(func() { close(w.gone) }) }

func (w *wire) Close() error {
	w.end()
	return nil
}

func (w *wire) Addr() net.Addr { return &net.UnixAddr{Name: "wire", Net: "unix"} }

type closing struct {
	net.Conn
	closed func()
}

func (c *closing) Close() error {
	err := c.Conn.Close()
	c.closed()
	return err
}
