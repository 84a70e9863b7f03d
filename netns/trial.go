package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"carboy/netns/frames"
	"carboy/netns/links"
)

// Trial is the first packet of a conversation, put on the agent's link as an
// agent with every capability could, and what came of it.
type Trial struct {
	To       netip.AddrPort
	Protocol string
	Sent     bool // it came to the other end of the link
	Control  bool // one to the same address, from the proxy's link, came to the host
	Escaped  bool // it left the proxy's namespace
	Answered bool // who it was sent to has answered
}

// Bounds of a trial. All of it happens on this host, in memory: what has not
// come by then has not come.
const (
	trialTime  = 2 * time.Second
	trialGrace = 150 * time.Millisecond // between two sendings, and after the last
)

// mostTargets is what the index of a packet has room for.
const mostTargets = (1<<16 - 1) / 2 / 3 // a trial and its control, of each protocol

// trials are those of one mark. The index of a control is its trial's and one.
type trials struct {
	n                      *Network
	mark                   frames.Mark
	isolated, egress, host *frames.Witness
	agent, internal, out   netlink.Link // the agent's link, its other end, the proxy's to the host
	ears                   []*Ear
	proxy                  netip.Addr // the proxy's address there
	packets, controls      []frames.Packet
}

// Addresses in no network there is: where IPv6 is off, nobody asks for them.
// Errors about a control go back to its link, as they would to a link-local one.
var (
	agent6   = netip.MustParseAddr("fd66::2")
	control6 = netip.MustParseAddr("fe80::66:2")
)

// Try sends a packet of each protocol to each target and watches the agent's
// link, the proxy's namespace, the host, and the ears at some of the targets. It
// takes at most two seconds, and sends nothing that leaves the host.
func (n *Network) Try(ctx context.Context, targets []netip.AddrPort, ears []*Ear) (_ []Trial, err error) {
	if len(targets) > mostTargets {
		return nil, fmt.Errorf("%d addresses are more than the %d that can be told apart", len(targets), mostTargets)
	}
	t := &trials{n: n, mark: frames.NewMark(), ears: ears}
	if err := t.find(); err != nil {
		return nil, err
	}
	t.plan(targets)
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.watch(); err != nil {
		return nil, err
	}
	return t.await(ctx)
}

func (t *trials) find() (err error) {
	if t.agent, err = t.n.agentLink(); err != nil {
		return err
	}
	return t.n.reading("egress", t.n.egress, func() (err error) {
		if t.internal, err = otherEnd(t.agent); err != nil {
			return err
		}
		if t.out, err = netlink.LinkByName(linkName); err != nil {
			return fmt.Errorf("find link %s: %w", linkName, err)
		}
		held, err := links.Addrs(t.out)
		if err == nil && len(held) > 0 {
			var own netip.Prefix
			own, err = netip.ParsePrefix(held[0])
			t.proxy = own.Addr()
		}
		if err == nil && !t.proxy.Is4() {
			err = fmt.Errorf("link %s has the addresses %v", linkName, held)
		}
		return err
	})()
}

// plan has hops for the way through a namespace that forwards, and no more.
func (t *trials) plan(targets []netip.AddrPort) {
	for _, to := range targets {
		from, control := AgentAddr, t.proxy
		if to.Addr().Is6() {
			from, control = agent6, control6
		}
		for _, protocol := range frames.Protocols {
			p := frames.Packet{Index: uint16(2 * len(t.packets)), Protocol: protocol, From: from, To: to, Hops: 2}
			t.packets = append(t.packets, p)
			p.Index, p.Hops, p.From = p.Index+1, 1, control
			t.controls = append(t.controls, p)
		}
	}
}

func (t *trials) watch() (err error) {
	open := func(w **frames.Witness) func() error {
		return func() (err error) {
			*w, err = frames.NewWitness(t.mark)
			return err
		}
	}
	return errors.Join(
		t.n.reading("isolated", t.n.isolated, open(&t.isolated))(),
		t.n.reading("egress", t.n.egress, open(&t.egress))(),
		named("host", open(&t.host)()),
	)
}

// send sends what has not come yet: a burst may be more than the kernel queues.
func (t *trials) send() (missing int, err error) {
	var packets, controls []frames.Packet
	for i := range t.packets {
		r := t.result(i)
		if !r.Sent {
			packets = append(packets, t.packets[i])
		}
		if !r.Control {
			controls = append(controls, t.controls[i])
		}
	}
	put := func(link netlink.Link, to net.HardwareAddr, packets []frames.Packet) func() error {
		return func() error { return t.mark.Send(link.Attrs().Index, to, packets) }
	}
	return len(packets) + len(controls), errors.Join(
		t.n.reading("isolated", t.n.isolated, put(t.agent, t.internal.Attrs().HardwareAddr, packets))(),
		t.n.reading("egress", t.n.egress, put(t.out, frames.Broadcast, controls))(),
	)
}

// await ends when all that is sure to come has come, and a little later.
func (t *trials) await(ctx context.Context) (all []Trial, err error) {
	missing := 1
	for deadline := time.Now().Add(trialTime); missing > 0 && time.Now().Before(deadline); {
		if missing, err = t.send(); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for packets: %w", context.Cause(ctx))
		case <-time.After(trialGrace):
		}
	}
	for i := range t.packets {
		all = append(all, t.result(i))
	}
	for _, w := range []*frames.Witness{t.isolated, t.egress, t.host} {
		err = errors.Join(err, w.Complete())
	}
	return all, err
}

func (t *trials) result(i int) Trial {
	p := t.packets[i]
	return Trial{
		To: p.To, Protocol: p.Protocol,
		Sent:     t.egress.Saw(p.Index, t.internal.Attrs().Index, false),
		Control:  t.host.SawComing(t.controls[i].Index),
		Escaped:  t.egress.Saw(p.Index, t.out.Attrs().Index, true) || t.host.SawComing(p.Index),
		Answered: t.isolated.Answered(p) || t.isHeard(p),
	}
}

func (t *trials) isHeard(p frames.Packet) bool {
	return slices.ContainsFunc(t.ears, func(e *Ear) bool { return e.At == p.To && e.hears(t.mark.Payload(p.Index)) })
}

func (t *trials) close() error {
	var errs []error
	for _, w := range []*frames.Witness{t.isolated, t.egress, t.host} {
		if w != nil {
			errs = append(errs, w.Close())
		}
	}
	return errors.Join(errs...)
}
