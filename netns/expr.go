package netns

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The words that our nftables rules are made of. Each is a part of one rule;
// nft(8) has their meaning.

type words = []expr.Any

func rule(parts ...words) words {
	var all words
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func accept() words { return words{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() words   { return words{&expr.Verdict{Kind: expr.VerdictDrop}} }

// reset refuses TCP at once: what waits for a silent drop waits for long.
func reset() words {
	return words{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	}
}

func iface(key expr.MetaKey, op expr.CmpOp, name string) words {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return words{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: padded}}
}

func from(name string) words    { return iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func notFrom(name string) words { return iface(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name) }
func to(name string) words      { return iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }
func notTo(name string) words   { return iface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name) }

// ip4 restricts a rule of an inet table to IPv4.
func ip4() words {
	return words{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}}}
}

// Offsets of the addresses in an IPv4 header.
const (
	sourceOffset = 12
	destOffset   = 16
)

func address(offset uint32, op expr.CmpOp, p netip.Prefix) words {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return words{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func source(p netip.Prefix) words    { return address(sourceOffset, expr.CmpOpEq, p) }
func notSource(p netip.Prefix) words { return address(sourceOffset, expr.CmpOpNeq, p) }
func dest(p netip.Prefix) words      { return address(destOffset, expr.CmpOpEq, p) }
func notDest(p netip.Prefix) words   { return address(destOffset, expr.CmpOpNeq, p) }

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// port matches a protocol and its destination port.
func port(protocol byte, number uint16) words {
	return words{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
	}
}

// state matches packets of connections in one of the states.
func state(op expr.CmpOp, bits uint32) words {
	return words{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

const knownStates = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED

// known are packets of connections that were accepted, and errors about them,
// such as fragmentation needed.
func known() words   { return state(expr.CmpOpNeq, knownStates) }
func unknown() words { return state(expr.CmpOpEq, knownStates) }

// clampMSS keeps TCP segments within the MTU of the way out.
func clampMSS() words {
	const synRst, syn = 0x06, 0x02
	return words{
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
