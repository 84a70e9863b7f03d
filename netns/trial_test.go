package netns

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"carboy/netns/sysctl"
)

// tried runs trials as another process than the bottle's would.
func tried(t *testing.T, n *Network) (trials []Trial, ears []*Ear) {
	t.Helper()
	live, err := Live(n.Record(), n.Config, n.IsolatedPath(), n.EgressPath())
	must(t, err)
	defer live.Close()
	around, err := live.Surroundings()
	must(t, err)
	ears, err = live.Listen(t.Context(), around)
	must(t, err)
	targets := []netip.AddrPort{netip.AddrPortFrom(ProxyAddr, proxyPort)}
	for _, e := range ears {
		must(t, e.Test(t.Context()))
		defer e.Close()
		targets = append(targets, e.At)
	}
	for _, a := range slices.Concat(around.Host, around.Gateways, live.Stranger(around)) {
		targets = append(targets, netip.AddrPortFrom(a, 9))
	}
	trials, err = live.Try(t.Context(), targets, ears)
	must(t, err)
	if len(trials) != 3*len(targets) || len(targets) < 6 {
		t.Fatalf("%d trials for %v", len(trials), targets)
	}
	return trials, ears
}

// TestTry: packets come to the proxy's end of a sound bottle's link and no
// further; without filter, and with forwarding on, each is seen to.
func TestTry(t *testing.T) {
	w := newWorld(t)
	n := w.bottle(t, w.config("abc", pluginDirs(t)[0]))
	serve(t, n.egress, ProxyAddr.String(), proxyPort)
	trials, _ := tried(t, n)
	for _, r := range trials {
		proxy := r.To.Addr() == ProxyAddr && r.To.Port() == proxyPort && r.Protocol == "tcp"
		if !r.Sent || !r.Control || r.Escaped || r.Answered != proxy {
			t.Errorf("%+v", r)
		}
	}
	must(t, inNamespace(n.egress, func() error {
		return errors.Join(exec.Command("nft", "flush", "ruleset").Run(), sysctl.Set(sysctl.Forward, "1"))
	}))
	trials, ears := tried(t, n)
	for _, r := range trials {
		there := slices.ContainsFunc(ears, func(e *Ear) bool { return e.At == r.To }) || r.To.Addr() == ProxyAddr
		switch {
		case r.To.Addr().Is6():
			if r.Escaped {
				t.Errorf("IPv6 is off: %+v", r)
			}
		case there && r.To.Addr() == ProxyAddr:
			if !r.Answered && r.Protocol != "udp" {
				t.Errorf("%+v", r)
			}
		case !r.Escaped && !r.Answered:
			t.Errorf("%+v", r)
		}
	}
	must(t, n.installFilter())
	must(t, inNamespace(n.egress, func() error { return sysctl.Set(sysctl.Forward, "0") }))
}

// TestLiveWantsNamespaces: any other file is none.
func TestLiveWantsNamespaces(t *testing.T) {
	if _, err := Live(Record{}, Config{}, "/proc/self/ns/net", "/proc/self/status"); err == nil {
		t.Error("a file is taken for a namespace")
	}
	if _, err := Live(Record{}, Config{}, "/nowhere", "/proc/self/ns/net"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v", err)
	}
}

// TestEarTellsItsTest from what else arrives.
func TestEarTellsItsTest(t *testing.T) {
	w := newWorld(t)
	n := w.bottle(t, w.config("abc", pluginDirs(t)[0]))
	around, err := n.Surroundings()
	must(t, err)
	ears, err := n.Listen(t.Context(), around)
	must(t, err)
	for _, e := range ears {
		defer e.Close()
		must(t, e.Test(t.Context()))
		if e.Arrived([]byte("x")) != 0 {
			t.Errorf("%s: its own test arrived", e.At)
		}
	}
	at := ears[slices.IndexFunc(ears, func(e *Ear) bool { return e.At.Addr() == ProxyAddr })]
	if asks(n.isolated, "tcp", at.At.Addr().String(), at.At.Port()) || at.Arrived(nil) != 0 {
		t.Error("the filter lets the agent through")
	}
	must(t, inNamespace(n.egress, func() error { return exec.Command("nft", "flush", "ruleset").Run() }))
	asks(n.isolated, "tcp", at.At.Addr().String(), at.At.Port())
	await(t, "an arrival", func() bool { return at.Arrived(nil) == 1 })
	must(t, n.installFilter())
}
