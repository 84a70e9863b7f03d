package frames

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Broadcast is the hardware address of everybody on a link.
var Broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Send puts packets on a link, past routes and filters.
func (m Mark) Send(link int, to net.HardwareAddr, packets []Packet) (err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for _, p := range packets {
		kind := uint16(unix.ETH_P_IP)
		if p.To.Addr().Is6() {
			kind = unix.ETH_P_IPV6
		}
		at := &unix.SockaddrLinklayer{Protocol: networkOrder(kind), Ifindex: link, Halen: uint8(len(to))}
		copy(at.Addr[:], to)
		if err := unix.Sendto(fd, m.encode(p), 0, at); err != nil {
			return fmt.Errorf("send %s to %s: %w", p.Protocol, p.To, err)
		}
	}
	return nil
}
