package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/log"

	"carboy/netns"
	"carboy/runtime/buildproto"
)

// buildNetwork is the way out of a build's RUN steps, made when the first of
// them asks for it. It is one bottle of the host's table, with a lease of its
// own by which gc undoes it when we are killed.
type buildNetwork struct {
	host   *Host
	outlet *netns.Outlet
	record Record
	lock   *lock

	untend context.CancelFunc
	tended sync.WaitGroup
}

func (n *buildNetwork) resolverList() []string {
	servers, err := n.host.resolvers()
	if err != nil {
		return nil // answer says it, to a build that needs them
	}
	var list []string
	for _, s := range servers {
		list = append(list, s.String())
	}
	return list
}

func (n *buildNetwork) answer(ctx context.Context) buildproto.Answer {
	if n.outlet == nil {
		if err := n.up(ctx); err != nil {
			return buildproto.Answer{Error: err.Error()}
		}
	}
	return buildproto.Answer{Path: n.outlet.Path()}
}

// up claims as a bottle does: the lock first, then the lease, then the rest.
func (n *buildNetwork) up(ctx context.Context) (err error) {
	h := n.host
	resolvers, err := h.resolvers()
	if err != nil {
		return err
	}
	r := Record{Layout: layout, Kind: kindBuild, Instance: newInstance(), StateDir: h.StateDir}
	r.Name = "build-" + r.Instance
	if r.Owner, err = self(); err != nil {
		return fmt.Errorf("read own start time: %w", err)
	}
	outlet, err := netns.NewOutlet(netns.Config{
		Instance: r.Instance, StateDir: h.StateDir, PluginDir: h.PluginDir,
		Range: h.Range, Reserved: h.Reserved, Conflist: h.Conflist, Resolvers: resolvers,
	})
	if err != nil {
		return err
	}
	r.Network = outlet.Record()
	own, err := waitLock(ctx, r.lockPath(), time.Second)
	if err != nil {
		return fmt.Errorf("lock the build's network: %w", err)
	}
	if _, err := own.f.WriteString(h.Namespace); err != nil {
		return errors.Join(fmt.Errorf("lock the build's network: %w", err), own.remove())
	}
	if err := h.createLease(ctx, r); err != nil {
		return errors.Join(err, own.remove())
	}
	n.outlet, n.record, n.lock = outlet, r, own
	if err := outlet.Up(ctx); err != nil {
		return errors.Join(fmt.Errorf("attach network: %w", err), n.close(ctx))
	}
	ctx, n.untend = context.WithCancel(ctx)
	n.tended.Go(func() { tendOutlet(ctx, outlet) })
	return nil
}

// tendOutlet puts back what another's firewall takes away, as for a bottle.
func tendOutlet(ctx context.Context, outlet *netns.Outlet) {
	tick := time.NewTicker(reassertPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := outlet.Reassert(ctx); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("restore rules on the host")
		}
	}
}

// close undoes it. What it cannot remove stays on record for gc.
func (n *buildNetwork) close(ctx context.Context) error {
	if n.outlet == nil {
		return nil
	}
	if n.untend != nil {
		n.untend()
		n.tended.Wait() // it must not meet the tear-down
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTime)
	defer cancel()
	err := errors.Join(n.outlet.Close(), netns.Detach(ctx, n.record.Network, ""))
	n.outlet = nil
	if err == nil {
		err = n.host.deleteLease(ctx, n.record)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("remove the network of the build: %w: `carboy gc` tries again", err), n.lock.release())
	}
	return n.lock.remove()
}
