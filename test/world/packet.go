package world

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is a kind of packet that came in on a link, whether anyone listened
// for it or not.
type Packet struct {
	Link     string // where it came in
	Protocol string // tcp, udp, icmp, icmpv6, arp, or a number
	Source   netip.Addr
	Dest     netip.Addr
	Port     uint16 // destination port
}

// Count is how often a packet came.
type Count struct {
	Packet
	N int
}

func (c Count) String() string {
	return fmt.Sprintf("%s %s %s -> %s port %d: %d", c.Link, c.Protocol, c.Source, c.Dest, c.Port, c.N)
}

// sniffer counts the incoming packets of every link of a namespace.
type sniffer struct {
	file     *os.File
	closed   atomic.Bool
	linkName func(index int) (string, error)
	names    map[int]string // of links, by index; run's own
	mu       sync.Mutex
	counts   map[Packet]int
}

// Packets returns what came in at a place since Reset, after Settle. Neighbour
// discovery is left out.
func (w *World) Packets(place string) []Count {
	s := w.packets[place]
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Count
	for p, n := range s.counts {
		all = append(all, Count{Packet: p, N: n})
	}
	slices.SortFunc(all, func(a, b Count) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// Reset forgets all arrivals and packets.
func (w *World) Reset() {
	w.arrivals.reset()
	for _, s := range w.packets {
		s.mu.Lock()
		clear(s.counts)
		s.mu.Unlock()
	}
}

const markerPort = 9 // discard: nothing else uses it here

// Settle returns when all that was sent has been counted: it sends a packet
// to each place after it, and waits until that one is seen.
func (w *World) Settle(ctx context.Context) error {
	for place, target := range map[string]string{AtInternet: Gateway, AtLAN: Neighbour, AtHost: "127.0.0.1"} {
		if err := w.packets[place].settle(ctx, target); err != nil {
			return fmt.Errorf("settle %s: %w", place, err)
		}
	}
	return nil
}

func (s *sniffer) settle(ctx context.Context, target string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", fmt.Sprintf("%s:%d", target, markerPort))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for before := s.markers(); s.markers() == before; {
		_, _ = c.Write([]byte("marker")) // refused: the last one came through
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("the marker was not seen: %w", err)
		}
	}
	return s.drops()
}

func (s *sniffer) markers() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, c := range s.counts {
		if p.Port == markerPort {
			n += c
		}
	}
	return n
}

// drops is an error when packets were lost: then a count of none means nothing.
func (s *sniffer) drops() error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var lost uint32
	ctl := raw.Control(func(fd uintptr) {
		var st *unix.TpacketStats
		if st, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			lost = st.Drops
		}
	})
	if lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d packets were not counted", lost))
	}
	return errors.Join(ctl, err)
}

// sniff starts a sniffer in each place.
func (w *World) sniff() error {
	for place, n := range w.spaces {
		s := &sniffer{counts: map[Packet]int{}, names: map[int]string{}, linkName: n.linkName}
		if err := n.do(s.open); err != nil {
			return fmt.Errorf("count packets of %s: %w", place, err)
		}
		w.packets[place] = s
		w.run(s, s.run)
	}
	return nil
}

func (s *sniffer) open() error {
	everything := int(binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff}))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, everything)
	if err != nil {
		return err
	}
	s.file = os.NewFile(uintptr(fd), "packets")
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
}

// Close ends run.
func (s *sniffer) Close() error {
	s.closed.Store(true)
	return s.file.Close()
}

func (s *sniffer) run() error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 128) // headers are enough
	for {
		var n int
		var from unix.Sockaddr
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if s.closed.Load() {
			return net.ErrClosed
		}
		if err != nil {
			return err
		}
		if failed != nil {
			continue // ENETDOWN when a link goes away
		}
		s.count(from.(*unix.SockaddrLinklayer), buf[:n])
	}
}

func (s *sniffer) count(from *unix.SockaddrLinklayer, b []byte) {
	if from.Pkttype == unix.PACKET_OUTGOING {
		return
	}
	p, ok := parsePacket(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, from.Protocol)), b)
	if !ok {
		return
	}
	p.Link = s.name(from.Ifindex)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[p]++
}

// name looks a link up once: its index is not used again.
func (s *sniffer) name(index int) string {
	if _, ok := s.names[index]; !ok {
		name, err := s.linkName(index)
		if err != nil { // the link is gone already
			name = strconv.Itoa(index)
		}
		s.names[index] = name
	}
	return s.names[index]
}
