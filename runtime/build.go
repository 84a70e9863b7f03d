package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"carboy/runtime/bottlespec"
	"carboy/runtime/buildproto"
	"carboy/runtime/invoker"
)

// BuildOptions are a build beside what the client half is told.
type BuildOptions struct {
	buildproto.Build
	Invoker invoker.User // whose rights the client half has
	Environ []string     // of the client half
	Keep    int64        // bytes of the build cache to keep
	Stderr  *os.File     // gets the progress
}

// ErrBuild is a build that failed for what its Dockerfile says.
var ErrBuild = errors.New("build failed")

// controllerTime is what a controller may take to end what it has begun.
const controllerTime = 20 * time.Second

// Build builds an image by a Dockerfile and returns its digest. BuildKit runs
// in two processes that end with it: a controller with our rights, and a client
// with the invoker's, which alone opens the invoker's files.
func (h *Host) Build(ctx context.Context, o BuildOptions) (digest string, err error) {
	if o.Buildkit != "" {
		return h.buildElsewhere(ctx, o)
	}
	near, far, err := socketPair()
	if err != nil {
		return "", err
	}
	clientCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		defer cancel() // there is nobody left to answer the client
		_, err := h.controller(ctx, buildproto.Controller{
			Network: o.Network, Invoker: o.Invoker.UID, Keep: o.Keep, Work: buildproto.WorkBuild,
		}, near, o.Stderr)
		ended <- err
	}()
	digest, err = h.buildClient(clientCtx, o, far)
	_ = far.Close() // the controller ends with its client
	if controllerErr := <-ended; controllerErr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = controllerErr
	}
	if err != nil {
		return "", err
	}
	return digest, nil
}

// buildElsewhere has an operator's buildkitd build, and looks whether the image
// is where bottles look for it.
func (h *Host) buildElsewhere(ctx context.Context, o BuildOptions) (string, error) {
	built, err := h.buildClient(ctx, o, nil)
	if err != nil {
		return "", err
	}
	for _, name := range o.Names {
		img, err := h.Client.ImageService().Get(ctx, name)
		if err != nil && !errdefs.IsNotFound(err) {
			return "", fmt.Errorf("look for %s: %w", name, err)
		}
		if err != nil || img.Target.Digest.String() != built {
			return "", fmt.Errorf("buildkitd has built %s@%s, and not into namespace %s of the containerd at %s: start it with --containerd-worker-namespace %s and that --containerd-worker-addr: %w",
				name, built, h.Namespace, h.Address, h.Namespace, errdefs.ErrFailedPrecondition)
		}
	}
	return built, nil
}

// PruneBuilds removes build cache until it takes at most keep bytes, and
// returns how much it removed.
func (h *Host) PruneBuilds(ctx context.Context, keep int64, stderr *os.File) (int64, error) {
	return h.controller(ctx, buildproto.Controller{Network: buildproto.NetworkNone, Keep: keep, Work: buildproto.WorkPrune}, nil, stderr)
}

// buildRoot is tied to containerd's own identity: the records there are of
// leases and snapshots in it, and of no use with another.
func (h *Host) buildRoot(ctx context.Context) (string, error) {
	server, err := h.Client.IntrospectionService().Server(ctx)
	if err != nil {
		return "", fmt.Errorf("identity of containerd: %w", err)
	}
	if server.UUID == "" {
		return "", fmt.Errorf("containerd has no identity: %w", errdefs.ErrFailedPrecondition)
	}
	return filepath.Join(h.DataDir, "buildkit", h.Namespace+"-"+filepath.Base(server.UUID)), nil
}

// buildClient runs the client half to its end.
func (h *Host) buildClient(ctx context.Context, o BuildOptions, wire *os.File) (_ string, err error) {
	client, err := h.startHalf(buildproto.BuildCommand, credential(o.Invoker), o.Environ, wire, o.Stderr)
	if err != nil {
		return "", err
	}
	// It holds nothing that would outlive it.
	stop := context.AfterFunc(ctx, func() { _ = client.cmd.Process.Kill() })
	defer stop()
	var r buildproto.Result
	if err = client.link.Send(o.Build); err == nil {
		err = client.link.Receive(&r)
	}
	ended := client.end(time.Second)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("build interrupted: %w", context.Cause(ctx))
	case err != nil:
		return "", fmt.Errorf("the build's client has ended: %w", errors.Join(err, ended))
	case r.Usage:
		return "", fmt.Errorf("%s: %w", printableLines(r.Error), errdefs.ErrInvalidArgument)
	case r.Error != "":
		return "", fmt.Errorf("%w: %s", ErrBuild, printableLines(r.Error))
	}
	if err := digest.Digest(r.Digest).Validate(); err != nil { // the invoker may have written it
		return "", fmt.Errorf("digest of what was built: %w", err)
	}
	return r.Digest, ended
}

// controller runs the controller half to its end, and gives it a network when
// it asks.
func (h *Host) controller(ctx context.Context, c buildproto.Controller, wire, stderr *os.File) (pruned int64, err error) {
	if wire != nil {
		defer wire.Close()
	}
	if c.Root, err = h.buildRoot(ctx); err != nil {
		return 0, err
	}
	c.Address, c.Namespace, c.Snapshotter, c.Insecure = h.Address, h.Namespace, h.Snapshotter, h.Registries.Insecure
	c.Pids, c.Memory = defaultPids, defaultMemory()
	if c.Boot, err = bootID(); err != nil {
		return 0, fmt.Errorf("id of the host's boot: %w", err)
	}
	if c.AppArmor, c.SELinux, err = bottlespec.HostLSM(); err != nil {
		return 0, err
	}
	outlet := &buildNetwork{host: h}
	if c.Network == buildproto.NetworkEgress {
		c.Resolvers = outlet.resolverList()
	}
	p, err := h.startHalf(buildproto.ServeCommand, nil, []string{"HOME=/root"}, wire, stderr)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, outlet.close(ctx)) }()
	stop := context.AfterFunc(ctx, func() { _ = p.link.Close() })
	defer stop()
	last, err := p.converse(ctx, c, outlet)
	ended := p.end(controllerTime)
	if errors.Is(ended, net.ErrClosed) {
		ended = nil
	}
	switch {
	case ctx.Err() != nil:
		return 0, errors.Join(fmt.Errorf("build interrupted: %w", context.Cause(ctx)), h.sweepAfter(ctx, p.cmd.ProcessState, c.Work))
	case err != nil:
		return 0, errors.Join(fmt.Errorf("the build's controller has ended: %w", errors.Join(err, ended)), h.sweepAfter(ctx, p.cmd.ProcessState, c.Work))
	case last.Error != "":
		return 0, errors.New(printableLines(last.Error))
	}
	return last.Pruned, ended
}

// sweepAfter cleans up after a controller that was killed.
func (h *Host) sweepAfter(ctx context.Context, ended *os.ProcessState, work string) error {
	if ended == nil || work == buildproto.WorkSweep {
		return nil
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), controllerTime)
	defer cancel()
	return h.sweepBuild(ctx)
}

// killedBuild is whether a controller of this containerd was killed and has had
// no successor yet.
func (h *Host) killedBuild(ctx context.Context) bool {
	marks, err := filepath.Glob(filepath.Join(h.DataDir, "buildkit", h.Namespace+"-*", buildproto.RunningFile))
	if err != nil || len(marks) == 0 {
		return false
	}
	root, err := h.buildRoot(ctx)
	if err != nil || !slices.Contains(marks, filepath.Join(root, buildproto.RunningFile)) {
		return false
	}
	f, err := os.Open(filepath.Join(root, buildproto.LockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil // it goes with the file
}

// sweepBuild removes what that controller left running and mounted.
func (h *Host) sweepBuild(ctx context.Context) error {
	_, err := h.controller(ctx, buildproto.Controller{Network: buildproto.NetworkNone, Work: buildproto.WorkSweep}, nil, nil)
	return err
}

// CheckBuilds refuses a host on which nothing can be built.
func (h *Host) CheckBuilds() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("builds need root: run carboy with sudo: %w", errdefs.ErrPermissionDenied)
	}
	return errors.Join(h.makeStateDir(), h.checkMounts())
}
