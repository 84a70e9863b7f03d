// Package frames sends packets from a link as a program with every capability
// could, and watches where they come by. Each has a mark, so that no other
// traffic is taken for them, and so few hops to go that none leaves the host.
//
// What it opens belongs to the network namespace of the calling thread.
package frames

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Protocols that are tried.
const (
	TCP  = "tcp"
	UDP  = "udp"
	ICMP = "icmp"
)

// Protocols are all of them.
var Protocols = []string{TCP, UDP, ICMP}

// Packet is the first one of a conversation. The port of ICMP does not matter.
type Packet struct {
	Index    uint16 // tells it from the others of its mark
	Protocol string
	From     netip.Addr
	To       netip.AddrPort
	Hops     uint8
}

// Mark is what the packets of one trial have in common.
type Mark struct {
	id    uint16 // of IPv4's identification, IPv6's flow label and ICMP's identifier
	token [8]byte
}

// NewMark is a random one.
func NewMark() Mark {
	var m Mark
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(m.token[:])
	m.id = binary.BigEndian.Uint16(id[:])
	return m
}

// port is the source port: above those of services.
func (m Mark) port() uint16 { return m.id | 0x8000 }

// Payload is what a packet carries.
func (m Mark) Payload(index uint16) []byte { return binary.BigEndian.AppendUint16(m.token[:], index) }

// Index finds a payload of the mark.
func (m Mark) Index(payload []byte) (index uint16, ok bool) {
	if len(payload) < len(m.token)+2 || !bytes.HasPrefix(payload, m.token[:]) {
		return 0, false
	}
	return binary.BigEndian.Uint16(payload[len(m.token):]), true
}

var numbers = map[string]uint8{TCP: unix.IPPROTO_TCP, UDP: unix.IPPROTO_UDP, ICMP: unix.IPPROTO_ICMP}

func (m Mark) encode(p Packet) []byte {
	number := numbers[p.Protocol]
	if p.To.Addr().Is6() && p.Protocol == ICMP {
		number = unix.IPPROTO_ICMPV6
	}
	body, sumAt := m.segment(p)
	sum := checksum(body)
	if p.To.Addr().Is6() || p.Protocol != ICMP {
		sum = checksum(pseudo(p, number, len(body)), body)
	}
	binary.BigEndian.PutUint16(body[sumAt:], sum)
	if p.To.Addr().Is6() {
		return append(m.header6(p, number, len(body)), body...)
	}
	return append(m.header4(p, number, len(body)), body...)
}

// segment is the packet without its header, and where its checksum belongs.
func (m Mark) segment(p Packet) (body []byte, sumAt int) {
	payload := m.Payload(p.Index)
	body = binary.BigEndian.AppendUint16(nil, m.port())
	body = binary.BigEndian.AppendUint16(body, p.To.Port())
	switch p.Protocol {
	case TCP:
		const words, syn, window = 5, 2, 1024
		body = binary.BigEndian.AppendUint32(body, binary.BigEndian.Uint32(m.token[:]))
		body = append(body, 0, 0, 0, 0, words<<4, syn)
		body = binary.BigEndian.AppendUint16(body, window)
		return append(append(body, 0, 0, 0, 0), payload...), 16
	case UDP:
		body = binary.BigEndian.AppendUint16(body, uint16(8+len(payload)))
		return append(append(body, 0, 0), payload...), 6
	default:
		body = append(body[:0], echoRequest(p.To.Addr()), 0, 0, 0)
		body = binary.BigEndian.AppendUint16(body, m.id)
		body = binary.BigEndian.AppendUint16(body, p.Index)
		return append(body, payload...), 2
	}
}

func echoRequest(to netip.Addr) byte {
	if to.Is6() {
		return 128
	}
	return 8
}

func (m Mark) header4(p Packet, number uint8, length int) []byte {
	h := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+length))
	h = binary.BigEndian.AppendUint16(h, m.id)
	h = append(h, 0, 0, p.Hops, number, 0, 0)
	h = append(append(h, p.From.AsSlice()...), p.To.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return h
}

func (m Mark) header6(p Packet, number uint8, length int) []byte {
	h := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(m.id))
	h = binary.BigEndian.AppendUint16(h, uint16(length))
	h = append(h, number, p.Hops)
	return append(append(h, p.From.AsSlice()...), p.To.Addr().AsSlice()...)
}

// pseudo is the header that checksums of TCP, UDP and ICMPv6 count (RFC 9293,
// RFC 8200): one for both versions, as zeros add nothing.
func pseudo(p Packet, number uint8, length int) []byte {
	h := append(p.From.AsSlice(), p.To.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(h, uint32(length)), uint32(number))
}

// checksum is that of RFC 1071, of parts that have even lengths.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
