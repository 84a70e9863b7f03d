// Package nft writes nftables rules as words, puts tables of base chains in
// force and reads them back. It does not know what the rules are for.
package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Words are a part of one rule, or a whole one; nft(8) has the meaning of each.
type Words = []expr.Any

// Rule joins words to one rule, in their order.
func Rule(parts ...Words) Words {
	var all Words
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Accept ends a table's judging of a packet.
func Accept() Words { return Words{&expr.Verdict{Kind: expr.VerdictAccept}} }

// Drop takes the packet away, and its sender hears nothing.
func Drop() Words { return Words{&expr.Verdict{Kind: expr.VerdictDrop}} }

// Reset refuses TCP at once: what waits for a silent drop waits for long.
func Reset() Words {
	return Words{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	}
}

func iface(key expr.MetaKey, op expr.CmpOp, name string) Words {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return Words{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: padded}}
}

// From matches packets that came in by a link.
func From(name string) Words { return iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }

// NotFrom matches packets that came in by any other link.
func NotFrom(name string) Words { return iface(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name) }

// To matches packets that go out by a link.
func To(name string) Words { return iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }

// NotTo matches packets that go out by any other link.
func NotTo(name string) Words { return iface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name) }

// IP4 restricts a rule of an inet table to IPv4.
func IP4() Words {
	return Words{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}}}
}

// Offsets of the addresses in an IPv4 header.
const (
	sourceOffset = 12
	destOffset   = 16
)

func address(offset uint32, op expr.CmpOp, p netip.Prefix) Words {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return Words{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// Source matches an IPv4 source address.
func Source(p netip.Prefix) Words { return address(sourceOffset, expr.CmpOpEq, p) }

// NotSource matches every other IPv4 source address.
func NotSource(p netip.Prefix) Words { return address(sourceOffset, expr.CmpOpNeq, p) }

// Dest matches an IPv4 destination address.
func Dest(p netip.Prefix) Words { return address(destOffset, expr.CmpOpEq, p) }

// NotDest matches every other IPv4 destination address.
func NotDest(p netip.Prefix) Words { return address(destOffset, expr.CmpOpNeq, p) }

// Host is the prefix of one address.
func Host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Port matches a protocol (unix.IPPROTO_TCP or UDP) and its destination port.
func Port(protocol byte, number uint16) Words {
	return Words{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
	}
}

// state matches packets of connections in one of the states.
func state(op expr.CmpOp, bits uint32) Words {
	return Words{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

const knownStates = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED

// Known matches packets of connections that were accepted, and errors about
// them, such as fragmentation needed.
func Known() Words { return state(expr.CmpOpNeq, knownStates) }

// Unknown matches all other packets.
func Unknown() Words { return state(expr.CmpOpEq, knownStates) }

// ClampMSS keeps TCP segments within the MTU of the way out.
func ClampMSS() Words {
	const synRst, syn = 0x06, 0x02
	return Words{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{synRst}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{syn}},
		&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: 1, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	}
}
