package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"carboy/netns"
	"carboy/netns/flock"
	"carboy/runtime/initproto"
	"carboy/runtime/proxy"
	"carboy/runtime/verify"
)

// proof is what a bottle's seal is proved by: what was asked for, and what is
// there.
type proof struct {
	host      *Host
	record    Record
	seal      seal
	network   *netns.Network
	container verify.Container
	// start runs a command in the agent's container, as the agent's user.
	start func(initproto.Spec, initproto.Streams) (*initproto.Process, error)
}

// verify reads back what the seal rests on. The agent's command starts only when
// every point is proved; with a gate, when every probe there is has passed.
func (b *Bottle) verify(ctx context.Context) error {
	p := &proof{host: b.host, record: b.Record, seal: b.sealed.now(), network: b.network, start: b.agent.init.Start}
	if err := b.readBack(ctx, p); err != nil || !b.plan.Gate {
		return err
	}
	defer b.host.Trace.step("gate")()
	return p.expose(ctx, b.command.User).Err()
}

func (b *Bottle) readBack(ctx context.Context, p *proof) error {
	defer b.host.Trace.step("verify")()
	if err := p.look(ctx, b.agent.task.Pid(), b.proxy.task.Pid()); err != nil {
		return err
	}
	p.container.NetNS = b.network.IsolatedPath()
	return verify.Run(ctx, p.readBacks()).Err()
}

// look fills in what containerd and the kernel say of the agent's container.
func (p *proof) look(ctx context.Context, agent, proxyPID uint32) error {
	container, err := p.host.Client.LoadContainer(ctx, p.record.agentID())
	if err != nil {
		return fmt.Errorf("load container: %w", err)
	}
	spec, err := container.Spec(ctx)
	if err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	if spec.Process == nil || spec.Linux == nil {
		return errors.New("the container's specification has no process or is not of Linux")
	}
	p.container = verify.Container{
		Spec: spec, PID: int(agent), Proxy: int(proxyPID), Sandbox: p.record.Runtime == "runsc", Root: p.seal.Root,
		Dir: p.record.dir(), Init: p.host.initPath(), Resolv: filepath.Join(p.record.dir(), "resolv.conf"),
		Listen:  netip.AddrPortFrom(netns.ProxyAddr, proxy.Port),
		Members: func() ([]int, error) { return groupMembers(p.record.cgroup(p.record.agentID())) },
	}
	return nil
}

// readBacks take some milliseconds together.
func (p *proof) readBacks() []verify.Probe {
	var probes []verify.Probe
	for _, point := range p.network.Points(p.container.Sandbox) {
		probes = append(probes, verify.Probe{Name: point.Name, Look: verify.Reads(point.Want, point.Read)})
	}
	limits := func() error { return p.seal.Limits.check(p.record.cgroup(p.record.agentID()), p.container.PID) }
	probes = append(probes, p.container.Probes()...)
	return append(probes, verify.Probe{Name: "limits", Look: verify.Reads(p.seal.Limits.words(), limits)})
}

// Verify proves the seal of a running bottle, and changes nothing in it. It
// fails where it could not begin.
func (h *Host) Verify(ctx context.Context, name string) (_ verify.Findings, err error) {
	client, conn, err := h.Dial(ctx, name)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r, err := h.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	turn, err := os.Open(r.dir())
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	if err := flock.Lock(ctx, turn); err != nil { // what one listens for, another would find
		return nil, fmt.Errorf("wait for another verify of %s: %w", name, err)
	}
	p := &proof{host: h, record: r, start: client.Start}
	if p.seal, err = r.readSeal(); err != nil {
		return nil, err
	}
	if err := p.lookLive(ctx); err != nil {
		return nil, fmt.Errorf("bottle %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, p.network.Close()) }()
	found := verify.Run(ctx, p.readBacks())
	return append(found, p.expose(ctx, "")...), ctx.Err()
}

// lookLive finds what the supervisor holds by the processes that use it.
func (p *proof) lookLive(ctx context.Context) (err error) {
	agent, engine := p.host.pid(ctx, p.record.agentID()), p.host.pid(ctx, p.record.proxyID())
	if agent == 0 || engine == 0 {
		return fmt.Errorf("a container of it is not running: %w", errdefs.ErrFailedPrecondition)
	}
	if err := p.look(ctx, agent, engine); err != nil {
		return err
	}
	held := fmt.Sprintf("/proc/%d/fd/", p.record.Owner.PID)
	for _, ns := range p.container.Spec.Linux.Namespaces {
		if strings.HasPrefix(ns.Path, held) {
			p.container.NetNS = ns.Path // any other is not what was wired
		}
	}
	path := func(pid uint32) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }
	c := netns.Config{Instance: p.record.Instance, Ports: p.seal.Ports, Resolvers: p.seal.Resolvers, ProxyPort: proxy.Port}
	p.network, err = netns.Live(p.record.Network, c, path(agent), path(engine))
	return err
}

func groupMembers(group string) (pids []int, err error) {
	const file = "cgroup.procs"
	text, _, _, err := readGroup("pids", group, file, file)
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, err
}
