package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"carboy/image"
	"carboy/runtime/bottlespec"
	"carboy/runtime/proxy"
	"carboy/runtime/sshagent"
	"carboy/runtime/workspace"
)

// Bring-up is bounded once images and workspace are there: no step of it waits
// for a person.
const upTime = 2 * time.Minute

// UpOptions are what a bring-up takes beside the plan.
type UpOptions struct {
	Invoker int           // uid of who asks
	Runsc   string        // path of runsc, empty for runc
	Binary  string        // path of the proxy binary, empty for an image
	Keep    bool          // leave a failed bring-up standing
	Bound   time.Duration // how long the bottle may live; zero without a limit
	Term    string        // the caller's kind of terminal
	Cgroup  string        // that takes the containers' control groups; empty is the top of each hierarchy
	Pull    image.Policy
	Digest  string               // of the image that was just built; empty takes any
	Source  *workspace.Source    // the project, where the plan has a workspace
	Mounts  []*workspace.Source  // in the order of the plan's
	Decided func(proxy.Decision) // is told what the engine decides; nil is nobody
	Keys    []sshagent.Key       // of the plan's ssh hosts, in their order
}

// Up brings up a bottle in which the agent's command has not been started. On
// error nothing of it is left, unless Keep says so or the error tells what
// could not be removed. The caller ends it with Down.
func (h *Host) Up(ctx context.Context, p *Plan, o UpOptions) (_ *Bottle, err error) {
	h = h.everybodys()
	if err := p.checkKeys(o.Keys); err != nil {
		return nil, err
	}
	if len(p.pending) > 0 {
		return nil, invalid("the plan has secrets without a value")
	}
	resolvers, err := h.resolvers()
	if err != nil {
		return nil, err
	}
	images, err := h.ensureImages(ctx, p, o.Pull, o.Digest)
	if err != nil {
		return nil, err
	}
	b, err := h.claim(ctx, p, o, resolvers, images)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.abandon(ctx, o.Keep))
		}
	}()
	if err := b.place(b.leased(ctx)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, upTime, fmt.Errorf("bring-up took longer than %v", upTime))
	defer cancel()
	if err := b.prepare(); err != nil {
		return nil, err
	}
	if err := b.begin(); err != nil {
		return nil, err
	}
	ctx = b.leased(ctx)
	wired, shared := make(chan struct{}), make(chan struct{})
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.wire(gctx, wired) })
	g.Go(func() error { return b.raiseProxy(gctx, shared, wired) })
	g.Go(func() error { return b.raiseAgent(gctx, shared, wired) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := b.verify(ctx); err != nil {
		return nil, fmt.Errorf("seal not proved, the agent was not started:\n%w", err)
	}
	return b, nil
}

// images are those of a bottle's containers; the proxy's is zero for an engine
// that comes from the host.
type images struct{ agent, proxy image.Image }

// ensureImages pulls what is missing, which may take long: no name is taken and
// no time runs for it.
func (h *Host) ensureImages(ctx context.Context, p *Plan, policy image.Policy, digest string) (i images, err error) {
	defer h.Trace.step("images")()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		policy := policy
		if p.Build != nil {
			policy = image.PullNever // no registry has it
		}
		if i.agent, err = h.Images.Ensure(ctx, p.Image, policy); err != nil {
			return err
		}
		if digest != "" && digest != i.agent.Digest {
			return fmt.Errorf("image %s is another one than was just built for this bottle: somebody gave the name away: start again: %w", p.Image, errdefs.ErrFailedPrecondition)
		}
		return nil
	})
	if p.Proxy.Image != "" {
		g.Go(func() (err error) {
			if i.proxy, err = h.Images.Ensure(ctx, p.Proxy.Image, policy); err != nil {
				return fmt.Errorf("proxy: %w; import its image with `carboy image import`, name a binary of this host with --proxy-binary, or choose --proxy allowlist, which checks hosts only", err)
			}
			return nil
		})
	}
	return i, g.Wait()
}

func (b *Bottle) prepare() error {
	defer b.host.Trace.step("namespaces")()
	engine, err := proxy.New(b.plan.Proxy.Engine)
	if err != nil {
		return err
	}
	b.engine = engine
	if err := b.writeFiles(); err != nil {
		return err
	}
	if err := b.network.Open(); err != nil {
		return fmt.Errorf("make network namespaces: %w", err)
	}
	return nil
}

func (b *Bottle) wire(ctx context.Context, wired chan<- struct{}) error {
	defer b.host.Trace.step("network")()
	if err := b.network.Attach(ctx); err != nil {
		return fmt.Errorf("attach network: %w", err)
	}
	// Before any container starts in it: runsc takes the addresses over.
	if err := b.network.Verify(); err != nil {
		return fmt.Errorf("network not as wired: %w", err)
	}
	close(wired)
	return nil
}

// raiseProxy ends with a proxy that answers from inside the egress namespace.
// It closes shared when the bottle's shim is there.
func (b *Bottle) raiseProxy(ctx context.Context, shared chan<- struct{}, wired <-chan struct{}) error {
	var err error
	if b.proxy, err = b.create(ctx, "proxy", b.proxySpec()); err != nil {
		return err
	}
	close(shared)
	if err := b.startCell(ctx, "proxy", b.proxy, wired, nil); err != nil {
		return err
	}
	return b.startEngine(ctx)
}

// raiseAgent ends with carboy-init waiting for the command.
func (b *Bottle) raiseAgent(ctx context.Context, shared, wired <-chan struct{}) error {
	spec, err := b.agentSpec()
	if err != nil {
		return err
	}
	if err := await(ctx, shared); err != nil {
		return err
	}
	if b.agent, err = b.create(ctx, "agent", spec); err != nil {
		return err
	}
	var keep []int
	if b.root {
		keep = bottlespec.RootCapabilityNumbers()
	}
	if err := b.startCell(ctx, "agent", b.agent, wired, keep); err != nil {
		return err
	}
	return nil
}

func (b *Bottle) create(ctx context.Context, what string, s cellSpec) (*cell, error) {
	defer b.host.Trace.step(what + " task")()
	c, err := b.newCell(ctx, s)
	if err != nil {
		return c, fmt.Errorf("%s: %w", what, err)
	}
	return c, nil
}

// startCell waits for the links, because runsc reads interfaces when it
// starts, and leaves carboy-init provisioned and sealed.
func (b *Bottle) startCell(ctx context.Context, what string, c *cell, wired <-chan struct{}, keep []int) error {
	if err := await(ctx, wired); err != nil {
		return err
	}
	defer b.host.Trace.step(what + " start")()
	if err := c.start(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	files, err := b.files(what)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, f := range files {
		if err := c.init.Put(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if what == "agent" {
		if err := b.lendKeys(ctx, c.init); err != nil {
			return fmt.Errorf("lend ssh keys: %w", err)
		}
	}
	if err := c.init.Seal(ctx, keep); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func await(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
