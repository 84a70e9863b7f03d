package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"

	"carboy/netns"
	"carboy/runtime/audit"
	"carboy/runtime/authority"
	"carboy/runtime/bottlespec"
	"carboy/runtime/egress"
	"carboy/runtime/initproto"
	"carboy/runtime/proxy"
)

// Bottle is one that this process supervises. It dies with the process.
type Bottle struct {
	Record

	host    *Host
	plan    *Plan
	options UpOptions
	images  images
	lock    *lock
	network *netns.Network

	resolvers []netip.Addr // whom the proxy may ask
	engine    proxy.Engine
	authority authority.Authority // zero where nothing is intercepted
	proxy     *cell
	agent     *cell

	turn          chan struct{}      // of who starts, ends or changes the engine
	engineProcess *initproto.Process // in turn
	live          egress.Live        // in turn
	sealed        *sealed
	proxyLog      *proxyLog
	audit         *audit.Log // nil before begin
	command       initproto.Spec
	root          bool              // the agent was asked to be root
	guards        []bottlespec.Bind // on top of a live workspace
	uppers        []string          // directories that take what the agent writes
	control       net.Listener
	endSteering   context.CancelFunc
	history       History
}

func (o UpOptions) runtime() string {
	if o.Runsc != "" {
		return "runsc"
	}
	return "runc"
}

// leased makes everything that is created on the context belong to the
// bottle's lease.
func (b *Bottle) leased(ctx context.Context) context.Context {
	return leases.WithLease(ctx, b.leaseID())
}

// Start releases the agent's command with the given streams.
func (b *Bottle) Start(s initproto.Streams, size initproto.Size) (*initproto.Process, error) {
	defer b.host.Trace.step("agent command")()
	spec := b.command
	spec.Size = size
	return b.agent.init.Start(spec, s)
}

// TakesInput says whether the agent's command has an input.
func (b *Bottle) TakesInput() bool { return b.plan.Stdin }

// Traffic counts bytes between the agent and the proxy, both ways.
func (b *Bottle) Traffic() (uint64, error) { return b.network.Traffic() }

// LogDir holds the bottle's logs, also after its end.
func (b *Bottle) LogDir() string { return b.host.logDir(b.Record) }

// ProxyLog is where the engine's log is kept.
func (b *Bottle) ProxyLog() string { return filepath.Join(b.LogDir(), proxyLogFile) }

func (h *Host) logDir(r Record) string { return filepath.Join(h.LogDir, r.Instance) }

// reassertPause is how often the host's part of the wiring is looked at: other
// tools flush rules, and only the way out depends on ours.
const reassertPause = 5 * time.Second

// Tend keeps the bottle's way out working until ctx ends. Failures go to warn,
// each once while it lasts. It fails with errdefs.ErrResourceExhausted when the
// agent is to be stopped because it has written more than it may.
func (b *Bottle) Tend(ctx context.Context, warn func(error)) error {
	tick := time.NewTicker(reassertPause)
	defer tick.Stop()
	told, measure := "", time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := b.tendOnce(ctx)
		if start := time.Now(); start.After(measure) {
			diskErr := b.checkDisk(ctx)
			if errdefs.IsResourceExhausted(diskErr) {
				return diskErr
			}
			err = errors.Join(err, diskErr)
			measure = time.Now().Add(min(20*time.Since(start), longestUnmeasured)) // to measure reads every directory
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			told = ""
		} else if text := err.Error(); text != told {
			told = text
			warn(err)
		}
	}
}

func (b *Bottle) tendOnce(ctx context.Context) error {
	if err := b.network.Reassert(ctx); err != nil {
		return fmt.Errorf("restore rules on the host: %w", err)
	}
	if err := b.followResolvers(ctx); err != nil {
		return fmt.Errorf("follow the host's resolvers: %w", err)
	}
	return nil
}

// StopTime is how long an agent has between SIGTERM and SIGKILL, unless somebody
// says otherwise.
const StopTime = 10 * time.Second

// Stop ends a command: SIGTERM, and SIGKILL after grace. It never waits longer,
// not even for a carboy-init that hangs.
func Stop(p *initproto.Process, grace time.Duration) error {
	failed := make(chan error, 2)
	signal := func(s syscall.Signal) {
		if err := p.Signal(s); err != nil {
			failed <- err
		}
	}
	go signal(syscall.SIGTERM)
	select {
	case <-p.Ended():
		return nil
	case err := <-failed:
		return err
	case <-time.After(grace):
		go signal(syscall.SIGKILL)
		return nil
	}
}

// Down takes everything down, whatever ctx says. What could not be removed
// keeps its lease, and gc tries again.
func (b *Bottle) Down(ctx context.Context) error {
	if b.control != nil {
		_ = b.control.Close()
		b.endSteering()
		b.turn <- struct{}{} // a change that is under way gives up, and none comes after
		b.control = nil
	}
	b.agent.close()
	b.proxy.close()
	err := errors.Join(b.endAudit(), b.rejoin(), b.host.reap(ctx, b.Record, b.lock, b.network))
	if b.proxyLog != nil {
		err = errors.Join(err, b.proxyLog.Close())
	}
	return err
}

const downTime = time.Minute

// keepFile marks a failed bring-up that was left standing.
const keepFile = "keep"

// abandon ends a failed bring-up. With keep its containers stay, with what the
// proxy engine may still do, and without an agent: carboy-init holds them and
// refuses to run a command.
func (b *Bottle) abandon(ctx context.Context, keep bool) error {
	if !keep {
		return b.Down(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTime)
	defer cancel()
	var errs []error
	for _, c := range []*cell{b.agent, b.proxy} {
		if c != nil && c.init != nil {
			errs = append(errs, c.init.Hold(ctx))
		}
	}
	note, err := json.MarshalIndent(b.Record, "", "  ")
	errs = append(errs, err, os.WriteFile(filepath.Join(b.dir(), keepFile), note, 0o600), b.lock.release())
	kept := fmt.Errorf("kept for inspection: files in %s, containers %s and %s, log %s; remove with `carboy rm %s`",
		b.dir(), b.agentID(), b.proxyID(), b.ProxyLog(), b.Name)
	return errors.Join(append(errs, kept)...)
}
