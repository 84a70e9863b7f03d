package main

import (
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

// connect serves a CONNECT on a hijacked connection. The target is dialled
// before the client is answered, for a true answer; nothing that the client
// sends goes there before it has shown, by its TLS hello, that it means this
// host: else one name of a shared address would open them all.
func (e *engine) connect(r *http.Request, client net.Conn) {
	defer client.Close()
	d := policy.Decision{Method: http.MethodConnect, Host: policy.Printable(r.URL.Host)}
	t, err := connectTarget(r)
	if err != nil {
		e.refuse(client, d, err)
		return
	}
	d.Host, d.Port = t.host, t.port
	if d.Rule, err = e.decide(t); err != nil {
		e.refuse(client, d, err)
		return
	}
	upstream, err := e.reach(r.Context(), t)
	if err != nil {
		e.refuse(client, d, err)
		return
	}
	defer upstream.Close()
	d.Addr = upstream.RemoteAddr().String()
	plain := e.policy.Load().Plain(t.host, t.port)
	hello, err := e.establish(client, t, plain)
	if err != nil {
		e.failed(d, err)
		return
	}
	e.allowed(d)
	e.carry(&tunnel{target: t, plain: plain, client: client, upstream: upstream, idle: e.idle}, hello, d)
}

// connectTarget takes the authority form only (RFC 9112, 3.2.3).
func connectTarget(r *http.Request) (target, error) {
	if r.RequestURI != r.URL.Host {
		return target{}, denied{"not a host and a port"}
	}
	return parseTarget(r.URL.Host, 0)
}

// refuse answers instead of opening a tunnel.
func (e *engine) refuse(client net.Conn, d policy.Decision, err error) {
	e.failed(d, err)
	code, body, verdict := status(err), told(err), ""
	if isDenied(err) {
		verdict = verdictHeader + ": denied\r\n"
	}
	_, _ = fmt.Fprintf(client, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		code, http.StatusText(code), verdict, len(body), body) // the client may have gone
}

// establish says yes and returns what the client sent in order to be checked.
func (e *engine) establish(client net.Conn, t target, plain bool) ([]byte, error) {
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return nil, err
	}
	if plain {
		return nil, nil
	}
	return checkHello(client, t.host, e.patience())
}

// carry copies until both ends have finished, nothing has moved for too long,
// or the policy no longer allows it.
func (e *engine) carry(t *tunnel, hello []byte, d policy.Decision) {
	start := time.Now()
	p := &passage{target: t.target, plain: t.plain, end: t.close}
	err := e.enter(p, address(t.upstream).Addr())
	if err == nil {
		d.Up, d.Down, err = t.copy(hello)
	}
	if ended := e.leave(p); ended != nil {
		err = ended // what the copying saw is its effect
	}
	d.Millis = time.Since(start).Milliseconds()
	e.closed(d, err)
}

// tunnel is a CONNECT that was allowed. Its idle time counts for both
// directions together: a download alone keeps it open.
type tunnel struct {
	target   target
	plain    bool
	client   net.Conn
	upstream net.Conn
	idle     time.Duration
	moved    atomic.Int64
}

func (t *tunnel) close() {
	_ = t.client.Close()
	_ = t.upstream.Close()
}

// copy returns the bytes that went up and down, and the error that ended it if
// it was not the parties' wish.
func (t *tunnel) copy(hello []byte) (up, down int64, err error) {
	var both sync.WaitGroup
	var upErr, downErr error
	t.touch()
	both.Go(func() {
		var n int
		if n, upErr = t.upstream.Write(hello); upErr != nil {
			t.close()
			return
		}
		up, upErr = t.oneWay(t.upstream, t.client)
		up += int64(n)
	})
	both.Go(func() { down, downErr = t.oneWay(t.client, t.upstream) })
	both.Wait()
	// The first to fail closed the other's connections.
	if upErr == nil || errors.Is(upErr, net.ErrClosed) {
		upErr = downErr
	}
	return up, down, upErr
}

// oneWay passes the end of the stream on as a half close, and an error by
// ending the other direction too.
func (t *tunnel) oneWay(dst, src net.Conn) (int64, error) {
	n, err := io.CopyBuffer(struct{ io.Writer }{dst}, touching{t, src}, make([]byte, 32<<10))
	if err == nil {
		err = closeWrite(dst)
	}
	if err != nil {
		t.close()
	}
	return n, err
}

// touch moves the deadlines of both connections, but not for every packet.
func (t *tunnel) touch() {
	const precision = 20
	now, last := time.Now(), t.moved.Load()
	if now.UnixNano()-last < int64(t.idle/precision) || !t.moved.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	for _, c := range []net.Conn{t.client, t.upstream} {
		_ = c.SetDeadline(now.Add(t.idle)) // a closed one tells at its next use
	}
}

// touching reads for a tunnel.
type touching struct {
	*tunnel
	io.Reader
}

func (r touching) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.touch()
	}
	return n, err
}
