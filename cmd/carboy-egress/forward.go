package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"

	"github.com/elazarl/goproxy"

	"carboy/runtime/proxy/policy"
)

// handler is the proxy with our decisions plugged in.
func (e *engine) handler() http.Handler {
	p := goproxy.NewProxyHttpServer()
	p.Logger = log.New(io.Discard, "", 0)
	p.NonproxyHandler = http.HandlerFunc(origin)
	p.Tr = &http.Transport{
		Proxy:       nil, // there is nothing behind us
		DialContext: e.dialChecked, DisableCompression: true,
		MaxIdleConnsPerHost: 8, IdleConnTimeout: e.idle, ResponseHeaderTimeout: e.idle,
		MaxResponseHeaderBytes: maxHeader,
	}
	p.OnRequest().DoFunc(e.request)
	p.OnResponse().DoFunc(e.response)
	p.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return &goproxy.ConnectAction{Action: goproxy.ConnectHijack, Hijack: func(r *http.Request, client net.Conn, _ *goproxy.ProxyCtx) {
			e.connect(r, client)
		}}, host
	})
	return p
}

// origin answers requests that are to the proxy itself.
func origin(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Path != "/health" || r.URL.RawQuery != "" {
		http.Error(w, "this is a proxy", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"status":"healthy","engine":"allowlist"}`+"\n")
}

// request decides on a plain HTTP request. The Host header that goes on is
// always the URL's: net/http replaces what the client sent (RFC 9112, 3.2.2).
func (e *engine) request(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
	d := policy.Decision{Method: policy.Printable(r.Method), Host: policy.Printable(r.URL.Host)}
	t, err := httpTarget(r)
	if err != nil {
		return r, e.block(r, d, denied{err.Error()})
	}
	d.Host, d.Port = t.host, t.port
	rule, err := e.rule(t)
	if err != nil {
		return r, e.block(r, d, err)
	}
	d.Rule, d.Event, d.Verdict = rule.String(), "decision", "allow"
	ctx.UserData = d // for response, where no connection comes about
	r.URL.Host, r.Host = hostHeader(t), hostHeader(t)
	dropHopByHop(r.Header)
	r.Close = false // the client's wish is about its own connection
	return r.WithContext(e.logConnection(r.Context(), d)), nil
}

// logConnection writes the decision once the address is known: it is refused
// only when the name has been looked up.
func (e *engine) logConnection(ctx context.Context, d policy.Decision) context.Context {
	var once sync.Once // the transport may try again
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		once.Do(func() {
			d.Addr = i.Conn.RemoteAddr().String()
			e.write(d)
		})
	}})
}

func hostHeader(t target) string {
	if t.port == 80 {
		return t.host
	}
	return t.String()
}

func httpTarget(r *http.Request) (target, error) {
	if r.URL.Scheme != "http" {
		return target{}, errors.New("only http, and CONNECT")
	}
	if r.URL.User != nil {
		return target{}, errors.New("a URL with a user in it")
	}
	return parseTarget(r.URL.Host, 80)
}

func (e *engine) block(r *http.Request, d policy.Decision, err error) *http.Response {
	e.deny(d, err)
	resp := goproxy.NewResponse(r, "text/plain", status(err), "blocked: "+err.Error()+"\n")
	resp.Header.Set("X-Carboy-Verdict", "denied")
	return resp
}

// response turns failures on the way into statuses.
func (e *engine) response(resp *http.Response, ctx *goproxy.ProxyCtx) *http.Response {
	if resp == nil {
		d, _ := ctx.UserData.(policy.Decision)
		return e.block(ctx.Req, d, ctx.Error)
	}
	dropHopByHop(resp.Header)
	return resp
}

// dialChecked is how the transport connects: by the same check as a tunnel.
func (e *engine) dialChecked(ctx context.Context, _, authority string) (net.Conn, error) {
	t, err := parseTarget(authority, 0)
	if err != nil {
		return nil, err
	}
	if _, err := e.rule(t); err != nil {
		return nil, err
	}
	addrs, err := e.addresses(ctx, t)
	if err != nil {
		return nil, err
	}
	return dial(ctx, addrs, t.port)
}

// hopByHop headers concern one connection only (RFC 9110, 7.6.1).
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func dropHopByHop(h http.Header) {
	for _, line := range h.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}
