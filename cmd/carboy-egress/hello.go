package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"carboy/runtime/proxy/policy"
)

// maxHello bounds what is read before a tunnel is opened; post-quantum key
// shares make hellos of some kilobytes.
const maxHello = 64 << 10

var errSeen = errors.New("hello seen")

// checkHello reads the client's TLS hello and returns all bytes read. The name
// in it must be host: servers of one address tell their sites apart by it. It
// is not proof against an encrypted hello, nor against another Host inside the
// tunnel: that takes an engine that intercepts.
func checkHello(client net.Conn, host string) ([]byte, error) {
	name, raw, err := readHello(client)
	if err != nil {
		return nil, denied{"no TLS on a port that was not declared tcp: " + err.Error()}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		if name != "" {
			return nil, denied{fmt.Sprintf("TLS names %s, CONNECT an address", policy.Printable(name))}
		}
		return raw, nil
	}
	if normal, err := policy.NormalizeHost(name); err != nil || normal != host {
		return nil, denied{fmt.Sprintf("TLS names %s, CONNECT %s", policy.Printable(name), host)}
	}
	return raw, nil
}

// readHello lets the standard library parse: a server that stops at the hello
// and whose answers go nowhere.
func readHello(client net.Conn) (name string, raw []byte, err error) {
	if err := client.SetReadDeadline(time.Now().Add(headerTime)); err != nil {
		return "", nil, err
	}
	rec := &recorder{Conn: client}
	err = tls.Server(rec, &tls.Config{
		MinVersion: tls.VersionTLS10, //nolint:gosec // nothing is negotiated
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
