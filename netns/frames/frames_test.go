package frames

import (
	"encoding/binary"
	"flag"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Makefile's, for all below netns; here it changes nothing.
var _ = flag.Bool("root", false, "run the tests that need root, in namespaces of their own")

var samples = map[string]Packet{
	"tcp":   {Index: 7, Protocol: TCP, From: netip.MustParseAddr("10.66.0.2"), To: netip.MustParseAddrPort("192.0.2.1:80"), Hops: 2},
	"udp":   {Index: 8, Protocol: UDP, From: netip.MustParseAddr("10.66.0.2"), To: netip.MustParseAddrPort("192.0.2.1:53"), Hops: 2},
	"icmp":  {Index: 9, Protocol: ICMP, From: netip.MustParseAddr("10.66.0.2"), To: netip.MustParseAddrPort("192.0.2.1:9"), Hops: 2},
	"tcp6":  {Index: 10, Protocol: TCP, From: netip.MustParseAddr("fd66::2"), To: netip.MustParseAddrPort("[2001:db8::1]:80"), Hops: 2},
	"udp6":  {Index: 11, Protocol: UDP, From: netip.MustParseAddr("fd66::2"), To: netip.MustParseAddrPort("[2001:db8::1]:53"), Hops: 2},
	"icmp6": {Index: 12, Protocol: ICMP, From: netip.MustParseAddr("fd66::2"), To: netip.MustParseAddrPort("[2001:db8::1]:9"), Hops: 2},
}

func passes(t *testing.T, m Mark, b []byte) bool {
	t.Helper()
	vm, err := bpf.NewVM(m.filter())
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(b)
	return err == nil && n > 0
}

// TestMark: a packet is known by its own mark and by no other.
func TestMark(t *testing.T) {
	mine, other := Mark{id: 0x1234, token: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}, Mark{id: 0x4321, token: [8]byte{8, 7, 6, 5, 4, 3, 2, 1}}
	for name, p := range samples {
		b := mine.encode(p)
		s, ok := parse(b)
		index, marked := mine.Index(s.payload)
		if !ok || !marked || index != p.Index || s.protocol != p.Protocol || s.from.Addr() != p.From || s.echoed {
			t.Errorf("%s: %+v, %v, index %d", name, s, ok, index)
		}
		if _, marked := other.Index(s.payload); marked || passes(t, other, b) || !passes(t, mine, b) {
			t.Errorf("%s passes for another's, or not for its own", name)
		}
	}
}

// TestChecksums: one that is right sums up to nothing.
func TestChecksums(t *testing.T) {
	m := NewMark()
	for name, p := range samples {
		b := m.encode(p)
		header, body := b[:20], b[20:]
		if p.To.Addr().Is6() {
			body = b[40:]
		} else if checksum(header) != 0 {
			t.Errorf("%s: header %x", name, header)
		}
		number := b[9]
		if p.To.Addr().Is6() {
			number = b[6]
		}
		sum := checksum(pseudo(p, number, len(body)), body)
		if number == unix.IPPROTO_ICMP {
			sum = checksum(body)
		}
		if sum != 0 {
			t.Errorf("%s: sum %x", name, sum)
		}
	}
}

// TestAnswers: an answer is for the witness, and is no packet of the mark.
func TestAnswers(t *testing.T) {
	m := NewMark()
	b := m.encode(samples["icmp"])
	b[20] = 0 // an echo's answer
	binary.BigEndian.PutUint16(b[4:], m.id+1)
	if s, ok := parse(b); !ok || !s.echoed || s.port != m.id || !passes(t, m, b) {
		t.Errorf("echo: %+v, %v", s, ok)
	}
	b[20] = 11 // time exceeded, which quotes
	if _, ok := parse(b); ok {
		t.Error("an error is taken for a packet")
	}
	back := m.encode(samples["tcp"])
	binary.BigEndian.PutUint16(back[4:], m.id+1)
	binary.BigEndian.PutUint16(back[22:], m.port())
	if s, ok := parse(back); !ok || s.port != m.port() || !passes(t, m, back) {
		t.Errorf("tcp: %+v, %v", s, ok)
	}
	binary.BigEndian.PutUint16(back[22:], m.port()-1)
	if passes(t, m, back) {
		t.Error("what goes to another port passes")
	}
}

// TestShort: what a link brings may be anything.
func TestShort(t *testing.T) {
	m := NewMark()
	for name, p := range samples {
		b := m.encode(p)
		for n := range b {
			if s, ok := parse(b[:n]); ok {
				if _, marked := m.Index(s.payload); marked {
					t.Errorf("%s of %d bytes: %+v", name, n, s)
				}
			}
		}
		b[0] |= 0xf // a header of 60 bytes
		parse(b)
	}
}
