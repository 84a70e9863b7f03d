package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"carboy/netns"
	"carboy/runtime/proxy"
	"carboy/runtime/verify"
)

// exposeTime bounds all that is tried.
const exposeTime = 10 * time.Second

// exposure is what an agent is kept from, and what was tried to get there.
type exposure struct {
	groups []verify.Group
	ears   []*netns.Ear
	tested map[netip.AddrPort]error // of the ears
	trials func() ([]netns.Trial, error)
}

// expose tries to get out: by packets on the agent's link, and by a process in
// its container, whose user is the agent's where that is empty.
func (p *proof) expose(ctx context.Context, user string) (found verify.Findings) {
	ctx, cancel := context.WithTimeoutCause(ctx, exposeTime, fmt.Errorf("it took longer than %v", exposeTime))
	defer cancel()
	e := &exposure{tested: map[netip.AddrPort]error{}}
	defer e.close()
	err := p.prepare(ctx, e)
	if err != nil { // nothing was tried then, which is a result as well
		failed := func(context.Context) (string, error) { return "", verify.Unproved(err) }
		return verify.Run(ctx, []verify.Probe{{Name: "exposure", Look: failed}})
	}
	insider := verify.Insider{Sandbox: p.container.Sandbox, Root: p.seal.Root, Link: netns.InternalLink, Allowed: p.seal.Allowed, Groups: e.groups}
	insider.Account = p.insider(ctx, insider, user)
	return verify.Run(ctx, append(e.probes(p.container.Listen), insider.Probes()...))
}

func (p *proof) prepare(ctx context.Context, e *exposure) error {
	around, err := p.network.Surroundings()
	if err != nil {
		return err
	}
	if e.ears, err = p.network.Listen(ctx, around); err != nil {
		return err
	}
	for _, ear := range e.ears {
		e.tested[ear.At] = ear.Test(ctx)
	}
	others, err := p.others(ctx, around)
	if err != nil {
		return err
	}
	e.groups = p.groups(around, others, e)
	all := []netip.AddrPort{p.container.Listen}
	for _, g := range e.groups {
		all = append(all, g.Targets...)
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	all = slices.Compact(all)
	e.trials = sync.OnceValues(func() ([]netns.Trial, error) { return p.network.Try(ctx, all, e.ears) })
	return nil
}

// others are the addresses of other bottles, and one that no bottle has, so that
// something is tried where there is no other.
func (p *proof) others(ctx context.Context, around netns.Surroundings) ([]netip.Addr, error) {
	records, _, err := p.host.records(ctx)
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, r := range records {
		if r.Instance == p.record.Instance {
			continue
		}
		addrs, err := r.Network.EgressAddrs()
		if err != nil {
			return nil, err
		}
		all = append(all, addrs...)
	}
	return append(all, p.network.Stranger(around)...), nil
}

// Where clouds serve their metadata: that of most, and Amazon's by IPv6.
var metadata = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254")}

func (p *proof) groups(around netns.Surroundings, others []netip.Addr, e *exposure) []verify.Group {
	const discard, dns, http = 9, 53, 80
	return []verify.Group{
		e.group("egress", e.at(around.Own)),
		e.group("host", append(e.at(around.HostEnd), at(around.Host, discard)...)),
		e.group("gateway", at(around.Gateways, discard)),
		e.group("metadata", at(metadata, http)),
		e.group("bottles", at(others, proxy.Port)),
		e.group("resolvers", at(append([]netip.Addr{netns.ProxyAddr}, p.seal.Resolvers...), dns)),
	}
}

func at(addrs []netip.Addr, port uint16) (all []netip.AddrPort) {
	for _, a := range addrs {
		all = append(all, netip.AddrPortFrom(a, port))
	}
	return all
}

// at are the ears at addresses.
func (e *exposure) at(addrs []netip.Addr) (all []netip.AddrPort) {
	for _, ear := range e.ears {
		if slices.Contains(addrs, ear.At.Addr()) {
			all = append(all, ear.At)
		}
	}
	return all
}

func (e *exposure) group(name string, targets []netip.AddrPort) verify.Group {
	return verify.Group{Name: name, Targets: targets, Arrived: func() (heard string, err error) {
		for _, ear := range e.ears {
			if !slices.Contains(targets, ear.At) {
				continue
			}
			if n := ear.Arrived(insiderPayload); n > 0 {
				heard += fmt.Sprintf("%d arrivals at %s; ", n, ear.At)
			}
			err = errors.Join(err, e.tested[ear.At])
		}
		return heard, err
	}}
}

// probes judge the packets on the agent's link.
func (e *exposure) probes(listen netip.AddrPort) []verify.Probe {
	look := func(judge func([]netns.Trial) (string, error)) func(context.Context) (string, error) {
		return func(context.Context) (string, error) {
			trials, err := e.trials()
			if err != nil {
				return "", verify.Unproved(err)
			}
			return judge(trials)
		}
	}
	probes := []verify.Probe{{Name: "link-to-proxy", Look: look(func(trials []netns.Trial) (string, error) {
		if !answers(trials, listen) {
			return "", fmt.Errorf("%s does not answer", listen)
		}
		return listen.String() + " answers", nil
	})}}
	for _, g := range e.groups {
		probes = append(probes, verify.Probe{Name: "link-to-" + g.Name, Look: look(func(trials []netns.Trial) (string, error) {
			return e.judge(trials, g, listen)
		})})
	}
	return probes
}

func answers(trials []netns.Trial, listen netip.AddrPort) bool {
	return slices.ContainsFunc(trials, func(t netns.Trial) bool { return t.To == listen && t.Protocol == "tcp" && t.Answered })
}

// judge takes a packet for refused that was seen to be sent, went no further and
// was not answered, where another to the same address would have been seen.
func (e *exposure) judge(trials []netns.Trial, g verify.Group, listen netip.AddrPort) (string, error) {
	var failed, open []error
	tried := 0
	for _, t := range trials {
		if slices.Contains(g.Targets, t.To) {
			tried++
			failed, open = append(failed, through(t)), append(open, e.uncontrolled(t))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return "", err
	}
	if !answers(trials, listen) {
		open = append(open, errors.New("no control: the proxy does not answer"))
	}
	if err := errors.Join(open...); err != nil {
		return "", verify.Unproved(err)
	}
	return fmt.Sprintf("%d packets came to the proxy's end and no further, their controls did", tried), nil
}

// through is how a packet got further than it should.
func through(t netns.Trial) error {
	switch {
	case t.Escaped:
		return fmt.Errorf("%s to %s left the proxy's namespace", t.Protocol, t.To)
	case t.Answered:
		return fmt.Errorf("%s to %s was answered", t.Protocol, t.To)
	}
	return nil
}

// uncontrolled is why nothing follows from a packet that was not seen. The
// control at an ear is its test.
func (e *exposure) uncontrolled(t netns.Trial) error {
	err, heard := e.tested[t.To]
	switch {
	case !t.Sent:
		return fmt.Errorf("%s to %s did not come to the end of the agent's link", t.Protocol, t.To)
	case heard:
		return err
	case !t.Control:
		return fmt.Errorf("no control: %s to %s did not come to the host by the proxy's link", t.Protocol, t.To)
	}
	return nil
}

func (e *exposure) close() {
	for _, ear := range e.ears {
		_ = ear.Close() // nothing is written to it
	}
}
