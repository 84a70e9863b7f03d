package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"

	"github.com/elazarl/goproxy"

	"carboy/runtime/proxy/policy"
	"carboy/runtime/version"
)

// handler is goproxy with our decisions, connections and answers plugged in.
func (e *engine) handler() http.Handler {
	p := goproxy.NewProxyHttpServer()
	p.Logger = log.New(io.Discard, "", 0) // it would print what agents write
	p.NonproxyHandler = http.HandlerFunc(origin)
	p.Tr = e.transport
	p.KeepAcceptEncoding = true
	p.OnRequest().DoFunc(e.request)
	p.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return &goproxy.ConnectAction{Action: goproxy.ConnectHijack, Hijack: func(r *http.Request, client net.Conn, _ *goproxy.ProxyCtx) {
			e.connect(r, client)
		}}, host
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			p.ServeHTTP(hijacking{w}, r)
			return
		}
		e.forward(p, w, r)
	})
}

// origin answers requests that are to the proxy itself.
func origin(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Path != "/health" || r.URL.RawQuery != "" {
		http.Error(w, "this is a proxy", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{ // the client may have gone
		"status": "healthy", "engine": "allowlist", "version": version.Build,
	})
}

// exchange is one request on its way.
type exchange struct {
	passage
	decision policy.Decision
	logged   bool
	broken   error // the answer's body did not come to its end
}

type exchangeKey struct{}

// forward serves a request that is not CONNECT.
func (e *engine) forward(next http.Handler, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	x := &exchange{passage: passage{end: cancel}}
	if r.Body != http.NoBody {
		body := &patient{ReadCloser: r.Body, rc: http.NewResponseController(w), idle: e.idle}
		if err := body.open(); err != nil {
			return
		}
		defer body.finish()
		r.Body = body
	}
	next.ServeHTTP(prompt{w}, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
	why := e.leave(&x.passage)
	if x.broken == nil {
		return
	}
	if why == nil {
		why = x.broken
	}
	e.closed(x.decision, why)
	panic(http.ErrAbortHandler) // else half an answer would look like a whole one
}

// request decides on a request and prepares it. The Host that goes on is always
// the URL's: what the client wrote in the header is ignored and replaced (RFC
// 9112, 3.2.2), and net/http does not show it.
func (e *engine) request(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	x.decision = policy.Decision{Method: policy.Escape(r.Method), Host: policy.Printable(r.URL.Host)}
	t, err := httpTarget(r)
	if err != nil {
		return r, e.answer(r, x, err)
	}
	x.target, x.decision.Host, x.decision.Port = t, t.host, t.port
	if x.decision.Rule, err = e.decide(t); err != nil {
		return r, e.answer(r, x, err)
	}
	ctx.RoundTripper = goproxy.RoundTripperFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
		return e.roundTrip(r, x), nil
	})
	return prepare(e.traced(r, x), t), nil
}

func httpTarget(r *http.Request) (target, error) {
	switch {
	case r.URL.Scheme != "http":
		return target{}, denied{"only http, and CONNECT"}
	case r.URL.User != nil:
		return target{}, denied{"a URL with a user in it"}
	case isWebSocket(r.Header):
		return target{}, denied{"websockets go through CONNECT"}
	}
	return parseTarget(r.URL.Host, 80)
}

// prepare makes a request to us one to the target.
func prepare(r *http.Request, t target) *http.Request {
	host := t.String()
	if t.port == 80 {
		host = t.host
	}
	r.URL.Host, r.Host = host, host
	r.Trailer = nil
	r.Close = false // the client's wish is about its own connection
	dropHopByHop(r.Header)
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = nil // else net/http adds its own
	}
	return r
}

// traced logs the decision once the address is known: a name that is allowed
// may still have only addresses that are refused.
func (e *engine) traced(r *http.Request, x *exchange) *http.Request {
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !x.logged { // the transport tries again when a kept connection fails
			x.logged, x.decision.Addr = true, i.Conn.RemoteAddr().String()
			e.allowed(x.decision)
		}
		if e.enter(&x.passage, address(i.Conn).Addr()) != nil {
			x.end()
			_ = i.Conn.Close() // the transport would write first and look then
		}
	}}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
}

// roundTrip always has an answer.
func (e *engine) roundTrip(r *http.Request, x *exchange) *http.Response {
	resp, err := e.transport.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close() // the connection is of no more use
		err = errors.New("the target left HTTP unasked")
	}
	if err != nil {
		if ended := e.leave(&x.passage); ended != nil {
			err = ended // what the transport saw is its effect
		}
		return e.answer(r, x, err)
	}
	dropHopByHop(resp.Header)
	resp.Header.Del(verdictHeader)
	out := *resp // a copy does not get the trailers that come after the body
	out.Trailer, out.Body = nil, &watched{ReadCloser: resp.Body, x: x}
	return &out
}

// answer is what a client gets instead of the target's.
func (e *engine) answer(r *http.Request, x *exchange, err error) *http.Response {
	if x.logged {
		e.closed(x.decision, err)
	} else {
		e.failed(x.decision, err)
	}
	resp := goproxy.NewResponse(r, "text/plain; charset=utf-8", status(err), told(err))
	if isDenied(err) {
		resp.Header.Set(verdictHeader, "denied")
	}
	return resp
}

// dialForRequest is how the transport connects: by the same checks as a tunnel.
func (e *engine) dialForRequest(ctx context.Context, _, authority string) (net.Conn, error) {
	t, err := parseTarget(authority, 0)
	if err != nil {
		return nil, err
	}
	if _, err := e.decide(t); err != nil {
		return nil, err
	}
	conn, err := e.reach(ctx, t)
	if err != nil {
		return nil, err
	}
	return &dialled{Conn: conn, idle: e.idle}, nil
}
