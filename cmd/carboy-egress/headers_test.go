package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// The Host that goes on is the URL's, whatever the client wrote.
func TestHost(t *testing.T) {
	b := newBench(t, "a.test:plain")
	authority := "a.test:" + port(b.plain)
	for _, host := range []string{"evil.test", "b.test:" + port(b.plain), authority, ""} {
		answer := b.raw(t, "GET http://"+authority+"/ HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if !strings.Contains(answer, "served") || !strings.Contains(answer, "X-Host: "+authority+"\r\n") {
			t.Errorf("Host %q went on: %s", host, answer)
		}
	}
	if answer := b.raw(t, "GET http://A.Test.:"+port(b.plain)+"/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.Contains(answer, "X-Host: "+authority+"\r\n") {
		t.Errorf("what was decided on is not what went on: %s", answer)
	}
	if answer := b.raw(t, "GET http://"+authority+"/ HTTP/1.0\r\n\r\n"); !strings.Contains(answer, "X-Host: "+authority+"\r\n") {
		t.Errorf("HTTP/1.0: %s", answer)
	}
	if answer := b.raw(t, "GET http://b.test:"+port(b.plain)+"/ HTTP/1.1\r\nHost: "+authority+"\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 403 ") {
		t.Errorf("an allowed Host with another URL: %s", answer)
	}
}

func TestRequestHeaders(t *testing.T) {
	b := newBench(t, "a.test:plain")
	b.raw(t, "POST http://a.test:"+port(b.plain)+"/ HTTP/1.1\r\nHost: a.test\r\nConnection: close, X-Mine\r\nconnection: x-more\r\nX-Mine: 1\r\nX-More: 1\r\n"+
		"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Other: 1\r\nTE: trailers\r\nTrailer: X-Late\r\nUpgrade: h2c\r\n"+
		"HTTP2-Settings: AAMAAABkAAQAAP__\r\nTransfer-Encoding: chunked\r\nX-Kept: 1\r\nAccept-Encoding: br\r\nAuthorization: Bearer x\r\n\r\n0\r\nX-Late: 1\r\n\r\n")
	r := <-b.heads
	_, _ = io.Copy(io.Discard, r.Body) // trailers come after it
	for _, name := range []string{
		"Connection", "X-Mine", "X-More", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Other", "Te", "Trailer", "Upgrade", "Http2-Settings",
		"X-Forwarded-For", "Forwarded", "Via", "User-Agent",
	} {
		if r.Header.Get(name) != "" {
			t.Errorf("%s went on: %q", name, r.Header.Get(name))
		}
	}
	if len(r.Trailer) != 0 {
		t.Errorf("trailers went on: %q", r.Trailer)
	}
	for name, want := range map[string]string{"X-Kept": "1", "Accept-Encoding": "br", "Authorization": "Bearer x"} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("control: %s is %q", name, got)
		}
	}
}

func TestAnswerHeaders(t *testing.T) {
	b := newBench(t, "a.test:plain")
	resp, err := b.client().Get("http://a.test:" + port(b.plain) + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	for _, name := range []string{"X-Hop", "Proxy-Authenticate", "Trailer", verdictHeader} {
		if resp.Header.Get(name) != "" {
			t.Errorf("%s came back: %q", name, resp.Header.Get(name))
		}
	}
	if len(resp.Trailer) != 0 {
		t.Errorf("trailers came back: %q", resp.Trailer)
	}
	if resp.Header.Get("X-Host") == "" {
		t.Error("control: an ordinary header was dropped")
	}
}

func TestTargetThatLeavesHTTP(t *testing.T) {
	b := newBench(t, "a.test:plain")
	b.plain.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
	})
	if code, body := b.get(t, "http://a.test:"+port(b.plain)+"/"); code != http.StatusBadGateway {
		t.Errorf("%d %s", code, body)
	}
}
