package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"

	"carboy/netns"
	"carboy/runtime/proxy"
)

// Proxy engines run as users of their own: host daemons run as nobody, and a
// process of the same uid could trace the one that holds secrets.
const (
	firstProxyUser = 64000
	proxyUsers     = 1000
)

// claim takes a name: the lock of a new instance first, so that no reaper ever
// sees the lease of a live bottle without it, then the lease. On error nothing
// is left.
func (h *Host) claim(ctx context.Context, p *Plan, o UpOptions, resolvers []netip.Addr, i images) (_ *Bottle, err error) {
	defer h.Trace.step("claim")()
	r := Record{
		Layout: layout, Instance: newInstance(), Agent: p.Agent, Image: p.Image, Digest: i.agent.Digest, ProxyDigest: i.proxy.Digest, Runtime: o.runtime(),
		Proxy: p.Proxy.Engine, User: o.Invoker, StateDir: h.StateDir, Workspace: p.Workspace, Cgroup: o.Cgroup,
	}
	if r.Owner, err = self(); err != nil {
		return nil, fmt.Errorf("read own start time: %w", err)
	}
	ca, err := p.newAuthority(r.Instance, o.Bound)
	if err != nil {
		return nil, err
	}
	r.Authority = ca.Fingerprint
	network, err := netns.New(h.networkConfig(r, p, resolvers))
	if err != nil {
		return nil, err
	}
	r.Network = network.Record()
	own, err := waitLock(ctx, r.lockPath(), time.Second) // a gc may look at the file that we have just made
	if err != nil {
		return nil, fmt.Errorf("lock new bottle: %w", err)
	}
	if _, err := own.f.WriteString(h.Namespace); err != nil {
		return nil, errors.Join(fmt.Errorf("lock new bottle: %w", err), own.remove())
	}
	if r, err = h.claimName(ctx, p, r); err != nil {
		return nil, errors.Join(err, own.remove())
	}
	return &Bottle{Record: r, host: h, plan: p, options: o, lock: own, network: network, resolvers: resolvers, images: i, authority: ca,
		turn: make(chan struct{}, 1), live: p.live()}, nil
}

func (h *Host) networkConfig(r Record, p *Plan, resolvers []netip.Addr) netns.Config {
	return netns.Config{
		Instance: r.Instance, StateDir: h.StateDir, PluginDir: h.PluginDir,
		Range: h.Range, Reserved: h.Reserved, Conflist: h.Conflist,
		Resolvers: resolvers, Ports: p.policy.Ports(), ProxyPort: proxy.Port,
	}
}

// claimName takes the first of the plan's names that is free. A name whose bottle
// is dead is freed on the way.
func (h *Host) claimName(ctx context.Context, p *Plan, r Record) (Record, error) {
	stuck := map[string]error{} // why dead ones could not be removed
	for {
		dead, err := h.claimFirst(ctx, p.names(), &r, stuck)
		if dead == "" {
			if errdefs.IsAlreadyExists(err) {
				err = p.taken(stuck[p.Name])
			}
			return r, err
		}
		if stuck[dead] = h.free(ctx, dead); stuck[dead] == nil {
			delete(stuck, dead)
		}
	}
}

func (p *Plan) taken(notFreed error) error {
	if !p.Pinned {
		return fmt.Errorf("all names from %s to %s-99 are taken: %w", p.Name, p.Name, errdefs.ErrAlreadyExists)
	}
	taken := fmt.Errorf("a bottle named %s is there already: choose another --name, or remove it with `carboy rm -f %s`: %w", p.Name, p.Name, errdefs.ErrAlreadyExists)
	if notFreed != nil && !errors.Is(notFreed, errHeld) && !errdefs.IsFailedPrecondition(notFreed) {
		return errors.Join(taken, notFreed) // it is dead, and could not be removed
	}
	return taken
}

// claimFirst takes a proxy user and the first name that is free, unless a name
// before it is of a dead bottle that is not stuck: then it returns that and
// claims nothing. Claims of one host take turns, so that each gets a user of its
// own.
func (h *Host) claimFirst(ctx context.Context, names []string, r *Record, stuck map[string]error) (dead string, err error) {
	turn, err := waitLock(ctx, filepath.Join(h.StateDir, "claim.lock"), time.Minute)
	if err != nil {
		return "", fmt.Errorf("wait for another claim: %w", err)
	}
	defer func() { _ = turn.release() }()
	bottles, _, err := h.records(ctx)
	if err != nil {
		return "", err
	}
	if r.ProxyUser, err = freeProxyUser(bottles); err != nil {
		return "", err
	}
	for _, r.Name = range names {
		i := slices.IndexFunc(bottles, func(other Record) bool { return other.Name == r.Name })
		if i < 0 {
			if err := h.createLease(ctx, *r); !errdefs.IsAlreadyExists(err) { // one of another layout has it
				return "", err
			}
			continue
		}
		if _, tried := stuck[r.Name]; tried {
			continue
		}
		if alive, err := bottles[i].Owner.alive(); err == nil && !alive { // a gc may be at it: free waits for that
			return r.Name, nil
		}
	}
	return "", fmt.Errorf("no name is free: %w", errdefs.ErrAlreadyExists)
}

// free removes the bottle of that name where it has no supervisor any more.
// Where a gc is at it already, it waits for that.
func (h *Host) free(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, downTime)
	defer cancel()
	r, err := h.Find(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil // it has just gone
	}
	if err != nil {
		return err
	}
	own, err := h.awaitDead(ctx, r)
	if err != nil {
		return err
	}
	return h.reapDead(ctx, r, own)
}

func (h *Host) createLease(ctx context.Context, r Record) error {
	labels, err := r.labels()
	if err != nil {
		return err
	}
	_, err = h.Client.LeasesService().Create(ctx, leases.WithID(r.leaseID()), leases.WithLabels(labels))
	if err != nil {
		return fmt.Errorf("create lease %s: %w", r.leaseID(), err)
	}
	return nil
}

func freeProxyUser(bottles []Record) (int, error) {
	for uid := firstProxyUser; uid < firstProxyUser+proxyUsers; uid++ {
		if !slices.ContainsFunc(bottles, func(r Record) bool { return r.ProxyUser == uid }) {
			return uid, nil
		}
	}
	return 0, fmt.Errorf("%d bottles are there already, a host takes no more: %w", proxyUsers, errdefs.ErrResourceExhausted)
}

// writeFiles lays out the run directory, but for the engine's configuration, which
// is written when that starts. Nothing in it is secret.
func (b *Bottle) writeFiles() error {
	hosts := "127.0.0.1 localhost\n" + netns.ProxyAddr.String() + " pipelock proxy\n127.0.0.1 " + b.Name + "\n"
	text := map[string][]byte{
		"hosts":        []byte(hosts),
		"resolv.conf":  []byte("# no resolver: names are the proxy's business\n"),
		"proxy-hosts":  []byte("127.0.0.1 localhost\n"),
		proxyResolvers: resolvConf(b.resolvers),
	}
	for _, dir := range []string{"", "io", "proxy"} {
		if err := os.MkdirAll(filepath.Join(b.dir(), dir), 0o700); err != nil {
			return fmt.Errorf("make run directory: %w", err)
		}
	}
	for name, content := range text {
		if err := os.WriteFile(filepath.Join(b.dir(), name), content, 0o644); err != nil {
			return fmt.Errorf("write run directory: %w", err)
		}
	}
	b.sealed = b.newSealed()
	// The engine's user reads its configuration through the bind mount.
	return errors.Join(b.sealed.set(func(s *seal) { s.follow(b.live.Now) }), os.Chmod(filepath.Join(b.dir(), "proxy"), 0o755))
}
