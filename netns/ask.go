package netns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// AskTime is how long a resolver is waited for; the question is sent twice.
const AskTime = 4 * time.Second

// Ask asks a resolver for the root's name servers, from where it is called, and
// returns with its answer, whatever that says.
func Ask(ctx context.Context, server netip.Addr) error {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 53)))
	if err != nil {
		return err
	}
	defer conn.Close()
	return ask(ctx, conn)
}

// Ask is that from inside of the outlet's namespace.
func (o *Outlet) Ask(ctx context.Context, server netip.Addr) error {
	return inNamespace(o.network.egress, func() error { return Ask(ctx, server) })
}

func ask(ctx context.Context, conn *net.UDPConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) }) // else it waits out its time
	defer stop()
	question, id, err := rootQuestion()
	if err != nil {
		return err
	}
	for range 2 {
		if _, err := conn.Write(question); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(AskTime / 2)); err != nil {
			return err
		}
		if answered(conn, id) || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("no answer from %s within %v", conn.RemoteAddr(), AskTime)
}

// answered drops what is no answer to the question.
func answered(conn *net.UDPConn, id uint16) bool {
	reply := make([]byte, 4096)
	for {
		n, err := conn.Read(reply)
		if err != nil {
			return false
		}
		var p dnsmessage.Parser
		if head, err := p.Start(reply[:n]); err == nil && head.Response && head.ID == id {
			return true
		}
	}
}

func rootQuestion() (packed []byte, id uint16, err error) {
	var random [2]byte
	_, _ = rand.Read(random[:]) // never fails
	id = binary.BigEndian.Uint16(random[:])
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeNS, Class: dnsmessage.ClassINET}},
	}
	packed, err = m.Pack()
	return packed, id, err
}
