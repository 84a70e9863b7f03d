package world

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// parsePacket reads the headers of a packet without its link layer. It is not
// ok for neighbour discovery and multicast membership, which every link has.
func parsePacket(ether uint16, b []byte) (p Packet, ok bool) {
	switch {
	case ether == unix.ETH_P_IP && len(b) >= 20:
		p.Source, p.Dest = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		return p.transport(int(b[9]), b[min(len(b), int(b[0]&0xf)*4):])
	case ether == unix.ETH_P_IPV6 && len(b) >= 40:
		p.Source, p.Dest = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		return p.transport(int(b[6]), b[40:])
	case ether == unix.ETH_P_ARP && len(b) >= 28:
		p.Protocol, p.Source, p.Dest = "arp", netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
		return p, true
	}
	p.Protocol = "ether-" + strconv.FormatUint(uint64(ether), 16)
	return p, true
}

func (p Packet) transport(protocol int, b []byte) (Packet, bool) {
	switch protocol {
	case unix.IPPROTO_TCP:
		p.Protocol = "tcp"
	case unix.IPPROTO_UDP:
		p.Protocol = "udp"
	case unix.IPPROTO_ICMP:
		p.Protocol = "icmp"
		return p, true
	case unix.IPPROTO_ICMPV6:
		p.Protocol = "icmpv6"
		return p, len(b) == 0 || b[0] < 130 || b[0] > 137
	case unix.IPPROTO_HOPOPTS: // multicast membership reports
		return p, !p.Dest.IsMulticast()
	default:
		p.Protocol = strconv.Itoa(protocol)
	}
	if len(b) >= 4 {
		p.Port = binary.BigEndian.Uint16(b[2:4])
	}
	return p, true
}
