package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"carboy/runtime/proxy/policy"
)

// tunnel is a CONNECT that was allowed.
type tunnel struct {
	target   target
	client   net.Conn
	upstream net.Conn
	once     sync.Once
}

func (t *tunnel) close() {
	t.once.Do(func() {
		_ = t.client.Close()
		_ = t.upstream.Close()
	})
}

// connect serves a CONNECT on a hijacked connection.
func (e *engine) connect(r *http.Request, client net.Conn) {
	defer client.Close()
	d := policy.Decision{Method: http.MethodConnect, Host: policy.Printable(r.URL.Host)}
	t, err := parseTarget(r.URL.Host, 0)
	if err != nil {
		e.refuse(client, d, denied{err.Error()})
		return
	}
	d.Host, d.Port = t.host, t.port
	rule, err := e.rule(t)
	if err != nil {
		e.refuse(client, d, err)
		return
	}
	d.Rule = rule.String()
	e.open(r.Context(), client, t, d)
}

func (e *engine) refuse(client net.Conn, d policy.Decision, err error) {
	e.deny(d, err)
	code := status(err)
	_ = client.SetWriteDeadline(time.Now().Add(headerTime))
	_, _ = fmt.Fprintf(client, "HTTP/1.1 %d %s\r\nX-Carboy-Verdict: denied\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nblocked: %v\n",
		code, http.StatusText(code), err) // the client may have gone
}

// open answers 200 only for a name that resolves to a permitted address, and
// connects only after the client has shown that it means this host: else one
// name of a shared address would open them all.
func (e *engine) open(ctx context.Context, client net.Conn, t target, d policy.Decision) {
	addrs, err := e.addresses(ctx, t)
	if err != nil {
		e.refuse(client, d, err)
		return
	}
	var upstream net.Conn
	var hello []byte
	plain := e.policy.Load().Plain(t.host, t.port)
	if plain {
		if upstream, err = dial(ctx, addrs, t.port); err != nil {
			e.refuse(client, d, err)
			return
		}
	}
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	if !plain {
		if hello, err = checkHello(client, t.host); err == nil {
			upstream, err = dial(ctx, addrs, t.port)
		}
		if err != nil {
			e.deny(d, err)
			return
		}
	}
	d.Event, d.Verdict, d.Addr = "decision", "allow", upstream.RemoteAddr().String()
	e.write(d)
	e.carry(&tunnel{target: t, client: client, upstream: upstream}, hello, d)
}

// carry copies both ways until both ends have finished, nothing has moved for
// too long, or the policy no longer allows it.
func (e *engine) carry(t *tunnel, hello []byte, d policy.Decision) {
	e.tunnelMu.Lock()
	e.tunnels[t] = struct{}{}
	e.tunnelMu.Unlock()
	defer func() {
		t.close()
		e.tunnelMu.Lock()
		delete(e.tunnels, t)
		e.tunnelMu.Unlock()
	}()
	if _, err := e.rule(t.target); err != nil {
		return // a reload between decision and registration
	}
	start := time.Now()
	i := &idleness{limit: e.idle, conns: []net.Conn{t.client, t.upstream}}
	var both sync.WaitGroup
	var up, down int64
	both.Go(func() {
		n, err := t.upstream.Write(hello)
		up = int64(n)
		if err == nil {
			up += i.copy(t.upstream, t.client)
		}
	})
	both.Go(func() { down = i.copy(t.client, t.upstream) })
	both.Wait()
	d.Event, d.Verdict, d.Rule = "close", "", ""
	d.Up, d.Down, d.Millis = up, down, time.Since(start).Milliseconds()
	e.write(d)
}

// idleness moves the deadline of both connections whenever either carries
// something: a download alone keeps a tunnel open.
type idleness struct {
	limit time.Duration
	conns []net.Conn
	moved atomic.Int64
}

func (i *idleness) touch() {
	now := time.Now()
	last := i.moved.Load()
	if now.UnixNano()-last < int64(i.limit/20) || !i.moved.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	for _, c := range i.conns {
		_ = c.SetDeadline(now.Add(i.limit)) // a closed one tells at its next use
	}
}

// copy passes the end of the stream on as a half close.
func (i *idleness) copy(dst, src net.Conn) (n int64) {
	buf := make([]byte, 32<<10)
	i.touch()
	for {
		got, err := src.Read(buf)
		if got > 0 {
			i.touch()
			sent, writeErr := dst.Write(buf[:got])
			n += int64(sent)
			err = errors.Join(err, writeErr)
		}
		if err == nil {
			continue
		}
		if half, ok := dst.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) {
			_ = half.CloseWrite()
			return n
		}
		for _, c := range i.conns {
			_ = c.Close() // the other direction ends too
		}
		return n
	}
}
