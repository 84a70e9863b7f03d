package frames

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// segment is what matters of a packet that came by.
type segment struct {
	protocol string
	from     netip.AddrPort
	port     uint16 // it goes to; ICMP's identifier
	echoed   bool   // an answer of ICMP's
	payload  []byte
}

// parse knows no fragments, and of ICMP only echoes: errors quote packets that
// are not on their way any more.
func parse(b []byte) (s segment, ok bool) {
	const header4, header6 = 20, 40
	switch {
	case len(b) >= header4 && b[0]>>4 == 4:
		from, _ := netip.AddrFromSlice(b[12:16])
		length := int(b[0]&0xf) * 4
		return parseBody(b[9], from, b[min(length, len(b)):])
	case len(b) >= header6 && b[0]>>4 == 6:
		from, _ := netip.AddrFromSlice(b[8:24])
		return parseBody(b[6], from, b[header6:])
	}
	return s, false
}

func parseBody(number uint8, from netip.Addr, b []byte) (s segment, ok bool) {
	const tcp, short = 20, 8
	switch {
	case number == unix.IPPROTO_TCP && len(b) >= tcp:
		s.protocol = TCP
		s.payload = b[min(int(b[12]>>4)*4, len(b)):]
	case number == unix.IPPROTO_UDP && len(b) >= short:
		s.protocol = UDP
		s.payload = b[short:]
	case (number == unix.IPPROTO_ICMP || number == unix.IPPROTO_ICMPV6) && len(b) >= short:
		return parseEcho(from, b)
	default:
		return s, false
	}
	s.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(b))
	s.port = binary.BigEndian.Uint16(b[2:])
	return s, true
}

func parseEcho(from netip.Addr, b []byte) (s segment, ok bool) {
	const reply4, reply6 = 0, 129
	request := b[0] == echoRequest(from)
	s = segment{protocol: ICMP, from: netip.AddrPortFrom(from, 0), port: binary.BigEndian.Uint16(b[4:]), payload: b[8:]}
	s.echoed = from.Is4() && b[0] == reply4 || from.Is6() && b[0] == reply6
	return s, request || s.echoed
}
