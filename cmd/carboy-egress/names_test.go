package main

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"carboy/runtime/proxy/policy"
)

// names is a resolver that counts what it is asked.
type names struct {
	mu    sync.Mutex
	known map[string][]string // answers: each is given once, but for the last
	asked []string
}

// set makes answers, each some addresses with blanks between.
func (n *names) set(host string, answers ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[host+"."] = answers
}

func (n *names) questions() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	answers := n.known[host]
	if len(answers) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, Server: "192.0.2.53:53", IsNotFound: true}
	}
	if len(answers) > 1 {
		n.known[host] = answers[1:]
	}
	var addrs []netip.Addr
	for _, a := range strings.Fields(answers[0]) {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs, nil
}

// dns is a server that knows a.test only, and keeps what it was asked.
type dns struct {
	net.PacketConn
	mu    sync.Mutex
	asked []string
}

func newDNS(t *testing.T) *dns {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	d := &dns{PacketConn: conn}
	go d.serve()
	return d
}

func (d *dns) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := d.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		d.mu.Lock()
		d.asked = append(d.asked, q.Name.String()+" "+q.Type.String())
		d.mu.Unlock()
		m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeNameError, nil
		if q.Name.String() == "a.test." {
			m.RCode = dnsmessage.RCodeSuccess
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			}}
		}
		if answer, err := m.Pack(); err == nil {
			_, _ = d.WriteTo(answer, from)
		}
	}
}

func (d *dns) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", d.LocalAddr().String())
	}}
}

func TestWhatTheDNSIsAsked(t *testing.T) {
	b, d := newBench(t, "a.test:plain", "a.test:secure", "*.c.test", "e.test"), newDNS(t)
	b.resolve = d.resolver()
	for _, host := range []string{"secret.evil.test", "evil.a.test", "secret.a.test.evil.test", "c.test", "evil.test."} {
		for _, scheme := range []string{"http://", "https://"} {
			b.get(t, scheme+host+"/")
		}
	}
	b.get(t, "http://e.test:8080/")  // a port that is not declared
	b.get(t, "https://e.test:8443/") // nor this
	b.raw(t, "GET http://user@e.test/ HTTP/1.1\r\nHost: e.test\r\nConnection: close\r\n\r\n")
	d.mu.Lock()
	if len(d.asked) != 0 {
		t.Errorf("for denied names the DNS was asked %q", d.asked)
	}
	d.mu.Unlock()
	if code, body := b.get(t, "http://a.test:"+port(b.plain)+"/"); code != 200 {
		t.Errorf("control: %d %s", code, body)
	}
	if code, body := b.get(t, "https://a.test:"+port(b.secure)+"/"); code != 200 {
		t.Errorf("control: %d %s", code, body)
	}
	if code, body := b.get(t, "http://x.c.test/"); code != 502 || body != "not reached: look up x.c.test: no such host\n" {
		t.Errorf("a name that is not there: %d %q", code, body)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if want := []string{"a.test. TypeA", "a.test. TypeA", "x.c.test. TypeA"}; !slices.Equal(d.asked, want) {
		t.Errorf("asked %q, want %q", d.asked, want)
	}
}

func TestTheResolverIsNotShown(t *testing.T) {
	b := newBench(t, "gone.test")
	if code, body := b.get(t, "http://gone.test/"); code != 502 || strings.Contains(body, "192.0.2.53") {
		t.Errorf("%d %q", code, body)
	}
	all := b.decisions(t)
	if len(all) != 1 || all[0].Verdict != policy.Allow || !strings.Contains(all[0].Reason, "192.0.2.53") {
		t.Errorf("control: the log does not name it: %+v", all)
	}
}

// A name that answers otherwise the second time gains nothing.
func TestTheAddressCheckedIsTheOneDialled(t *testing.T) {
	b := newBench(t, "flip.test:plain", "tcp:flip.test:plain")
	for _, answers := range [][]string{{"127.0.0.1", "127.0.0.2"}, {"10.9.9.9 127.0.0.1 169.254.169.254", "127.0.0.2"}, {"::ffff:127.0.0.1", "127.0.0.2"}} {
		b.names.set("flip.test", answers...)
		before := len(b.names.questions())
		if code, body := b.get(t, "http://flip.test:"+port(b.plain)+"/"); code != 200 {
			t.Errorf("%q: %d %s", answers, code, body)
		}
		b.transport.CloseIdleConnections()
		b.names.set("flip.test", answers...)
		b.open(t, "flip.test:"+port(b.plain)).Close()
		if n := len(b.names.questions()) - before; n != 2 {
			t.Errorf("%q: looked up %d times for 2 connections", answers, n)
		}
		b.names.set("flip.test", answers[1])
		if code, _ := b.get(t, "http://flip.test:"+port(b.plain)+"/"); code != 403 {
			t.Errorf("control: the second answer gives %d", code)
		}
	}
	for _, d := range b.decisions(t) {
		if d.Addr != "" && d.Addr != b.plain.Listener.Addr().String() {
			t.Errorf("dialled %s", d.Addr)
		}
	}
}

func TestAddressesThatAreNotPublic(t *testing.T) {
	b := newBench(t, "rebind.test:plain", "a.test:plain", "tcp:rebind.test:plain", "169.254.169.254", "10.0.0.1", "127.0.0.1:plain")
	declared := *b.policy.Load()
	b.reload(policy.Policy{Allow: declared.Allow})
	for _, addr := range []string{
		"127.0.0.1", "127.8.8.8", "169.254.1.1", "169.254.169.254", "100.100.100.200", "168.63.129.16", "10.1.2.3", "172.16.0.1", "192.168.0.1",
		"100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "::1", "fd00::1", "fe80::1", "2606:4700::1111",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "10.1.2.3 ::1 127.0.0.1",
	} {
		b.names.set("rebind.test", addr)
		if code, body := b.get(t, "http://rebind.test:"+port(b.plain)+"/"); code != 403 || !strings.HasPrefix(body, "blocked: ") {
			t.Errorf("%s: %d %s", addr, code, body)
		}
		if _, code := b.tunnelTo(t, "rebind.test:"+port(b.plain)); code != 403 {
			t.Errorf("CONNECT to %s: %d", addr, code)
		}
	}
	for _, literal := range []string{"http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "http://127.0.0.1:" + port(b.plain) + "/"} {
		if code, _ := b.get(t, literal); code != 403 {
			t.Errorf("%s: %d", literal, code)
		}
	}
	for _, d := range b.decisions(t) {
		if d.Verdict != policy.Deny || d.Rule == "" || d.Reason == "" || d.Addr != "" {
			t.Errorf("logged as %+v", d)
		}
	}
	if n := b.arrived.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	b.reload(declared)
	for _, host := range []string{"a.test:", "127.0.0.1:"} {
		if code, body := b.get(t, "http://"+host+port(b.plain)+"/"); code != 200 {
			t.Errorf("control: a declared address gives %d %s", code, body)
		}
	}
}
