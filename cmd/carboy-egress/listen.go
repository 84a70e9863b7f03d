package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// gate bounds the connections that are open at once. netutil.LimitListener
// does the same but hides CloseWrite, which tunnels need.
type gate struct {
	net.Listener
	slots chan struct{}
	idle  time.Duration
}

func newGate(l net.Listener, most int, idle time.Duration) *gate {
	return &gate{Listener: l, slots: make(chan struct{}, most), idle: idle}
}

func (g *gate) Accept() (net.Conn, error) {
	g.slots <- struct{}{}
	release := func() { <-g.slots }
	conn, err := g.Listener.Accept()
	if err != nil {
		release()
		return nil, err
	}
	return &accepted{Conn: conn, idle: g.idle, release: sync.OnceFunc(release)}, nil
}

// accepted is a client's connection. A client that does not read is let go:
// every write has its deadline. Deadlines for reading are the server's, as the
// one for a header must not move with each byte.
type accepted struct {
	net.Conn
	idle    time.Duration
	release func()
}

func (a *accepted) Write(p []byte) (int, error) {
	if err := a.SetWriteDeadline(time.Now().Add(a.idle)); err != nil {
		return 0, err
	}
	return a.Conn.Write(p)
}

func (a *accepted) Close() error {
	defer a.release()
	return a.Conn.Close()
}

func (a *accepted) CloseWrite() error { return closeWrite(a.Conn) }

// dialled is a connection to a target that carries requests: it ends when it
// carries nothing for too long.
type dialled struct {
	net.Conn
	idle time.Duration
}

func (d *dialled) Read(p []byte) (int, error) {
	if err := d.SetReadDeadline(time.Now().Add(d.idle)); err != nil {
		return 0, err
	}
	return d.Conn.Read(p)
}

func (d *dialled) Write(p []byte) (int, error) {
	// The answer is being waited for all the while that a long body is sent.
	if err := d.SetDeadline(time.Now().Add(d.idle)); err != nil {
		return 0, err
	}
	return d.Conn.Write(p)
}

// hijacking gives goproxy a connection from which nothing is lost: it drops
// what a client sent together with its CONNECT (v1.9.3, https.go).
type hijacking struct{ http.ResponseWriter }

func (h hijacking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := rw.Peek(rw.Reader.Buffered())
	if err != nil {
		_ = conn.Close() // nobody else has it
		return nil, nil, err
	}
	return &hijacked{Conn: conn, r: io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn)}, rw, nil
}

type hijacked struct {
	net.Conn
	r io.Reader
}

func (h *hijacked) Read(p []byte) (int, error) { return h.r.Read(p) }

func (h *hijacked) CloseWrite() error { return closeWrite(h.Conn) }

// closeWrite ends one direction, or both where there is no such thing.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); !errors.Is(err, syscall.ENOTCONN) { // the other end has left
			return err
		}
		return nil
	}
	return c.Close()
}
