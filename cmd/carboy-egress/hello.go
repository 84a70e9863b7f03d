package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"carboy/runtime/proxy/policy"
)

// maxHello bounds what is read before a tunnel is opened; post-quantum key
// shares make hellos of some kilobytes.
const maxHello = 64 << 10

var errSeen = errors.New("hello seen")

// checkHello reads the client's TLS hello and returns all bytes read. The name
// in it must be host: servers of one address tell their sites apart by it. It
// is not proof against an encrypted hello, a second hello or another Host
// inside the tunnel: that takes an engine that intercepts.
func checkHello(client net.Conn, host string, patience time.Duration) ([]byte, error) {
	name, raw, err := readHello(client, patience)
	if err != nil {
		return nil, denied{fmt.Sprintf("no TLS on a port that is not declared tcp: %v", err)}
	}
	if err := checkName(name, host); err != nil {
		return nil, err
	}
	return raw, nil
}

// checkName takes the name in a hello, which may be anything, and a normalised
// host.
func checkName(name, host string) error {
	_, err := netip.ParseAddr(host)
	switch literal := err == nil; {
	case name == "" && literal: // addresses are not named (RFC 6066, 3)
		return nil
	case name == "":
		return denied{"TLS names no host, CONNECT " + host}
	case !literal && strings.EqualFold(name, host) && len(name) == len(host): // in ASCII: the Kelvin sign folds to k
		return nil
	default:
		return denied{fmt.Sprintf("TLS names %s, CONNECT %s", policy.Printable(name), host)}
	}
}

// readHello lets the standard library parse: a server that stops at the hello
// and whose answers go nowhere.
func readHello(client net.Conn, patience time.Duration) (name string, raw []byte, err error) {
	if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", nil, err
	}
	rec := &recorder{Conn: client}
	err = tls.Server(rec, &tls.Config{
		MinVersion: tls.VersionTLS12, // of no effect: the hello is seen before
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name = h.ServerName
			return nil, errSeen
		},
	}).Handshake()
	if !errors.Is(err, errSeen) {
		if err == nil {
			err = errors.New("no hello")
		}
		return "", nil, err
	}
	return name, rec.read.Bytes(), client.SetReadDeadline(time.Time{})
}

// recorder keeps what is read and drops what is written.
type recorder struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorder) Read(p []byte) (int, error) {
	room := maxHello - r.read.Len()
	if room <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := r.Conn.Read(p[:min(len(p), room)])
	r.read.Write(p[:n])
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }
func (r *recorder) Close() error                { return nil }
