package frames

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Witness sees the packets of a mark on every link of a namespace, and what
// answers them.
type Witness struct {
	mark    Mark
	file    *os.File
	done    chan struct{}
	mu      sync.Mutex
	seen    map[sighting]bool
	answers map[answer]bool
}

type sighting struct {
	index uint16
	link  int
	out   bool
}

type answer struct {
	protocol string
	from     netip.AddrPort // port zero for ICMP
}

// NewWitness watches until Close.
func NewWitness(m Mark) (*Witness, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	w := &Witness{mark: m, file: os.NewFile(uintptr(fd), "packets"), done: make(chan struct{}), seen: map[sighting]bool{}, answers: map[answer]bool{}}
	const room = 4 << 20 // in bytes, for what comes while others have the processor
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room)
	// Bound last: nothing comes in before the filter is there.
	if err == nil {
		err = m.attachFilter(fd)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch packets: %w", err), w.file.Close())
	}
	go w.run()
	return w, nil
}

func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// attachFilter leaves all other traffic to the kernel: the host's may be much.
func (m Mark) attachFilter(fd int) error {
	program, err := bpf.Assemble(m.filter())
	if err != nil {
		return err
	}
	var raw []unix.SockFilter
	for _, i := range program {
		raw = append(raw, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]})
}

// filter passes what has the mark in its header, echoes of it, and what goes to
// the mark's port. The data begins with the network's header.
func (m Mark) filter() []bpf.Instruction {
	const all = 0xffff
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: 12},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 4, SkipTrue: 10},
		bpf.LoadAbsolute{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(m.id), SkipTrue: 7},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMP, SkipTrue: 2},
		bpf.LoadIndirect{Off: 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(m.port()), SkipTrue: 2, SkipFalse: 3},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(m.id), SkipTrue: 1},
		bpf.RetConstant{Val: all},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: 0, Size: 4}, // version 6
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfffff},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(m.id), SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 2},
		bpf.LoadAbsolute{Off: 42, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(m.port()), SkipTrue: 2, SkipFalse: 3},
		bpf.LoadAbsolute{Off: 44, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(m.id), SkipTrue: 1},
		bpf.RetConstant{Val: all},
		bpf.RetConstant{Val: 0},
	}
}

func (w *Witness) run() {
	defer close(w.done)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 256) // headers and the mark
	for {
		var n int
		var from unix.Sockaddr
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(failed, unix.EAGAIN)
		}); err != nil {
			return // closed
		}
		if at, ok := from.(*unix.SockaddrLinklayer); ok && failed == nil { // it fails once for a link that goes down
			w.note(at, buf[:n])
		}
	}
}

func (w *Witness) note(at *unix.SockaddrLinklayer, b []byte) {
	s, ok := parse(b)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	out := at.Pkttype == unix.PACKET_OUTGOING
	if index, marked := w.mark.Index(s.payload); marked && !s.echoed {
		w.seen[sighting{index, at.Ifindex, out}] = true
	}
	if out {
		return
	}
	switch {
	case s.echoed && s.port == w.mark.id:
		w.answers[answer{ICMP, netip.AddrPortFrom(s.from.Addr(), 0)}] = true
	case s.protocol != ICMP && s.port == w.mark.port():
		w.answers[answer{s.protocol, s.from}] = true
	}
}

// Saw says whether a packet came in on a link, or went out there.
func (w *Witness) Saw(index uint16, link int, out bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[sighting{index, link, out}]
}

// SawComing says whether one came in on any link.
func (w *Witness) SawComing(index uint16) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.seen {
		if s.index == index && !s.out {
			return true
		}
	}
	return false
}

// Answered says whether what a packet was sent to has sent one back.
func (w *Witness) Answered(p Packet) bool {
	from := p.To
	if p.Protocol == ICMP {
		from = netip.AddrPortFrom(from.Addr(), 0)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answers[answer{p.Protocol, from}]
}

// Complete is an error where packets were lost: then none seen means nothing.
func (w *Witness) Complete() error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var lost uint32
	controlErr := raw.Control(func(fd uintptr) {
		var st *unix.TpacketStats
		if st, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			lost = st.Drops
		}
	})
	if lost > 0 {
		err = fmt.Errorf("%d packets were not seen", lost)
	}
	return errors.Join(controlErr, err)
}

// Close returns when nothing is watched any more.
func (w *Witness) Close() error {
	err := w.file.Close()
	<-w.done
	return err
}
