package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"carboy/runtime/proxy/policy"
)

// shortIdle is long for what moves and short for what does not.
const shortIdle = 500 * time.Millisecond

func TestHeaderSize(t *testing.T) {
	b := newBench(t, "a.test:plain", "tcp:a.test:plain")
	authority := "a.test:" + port(b.plain)
	for size, want := range map[int]string{maxHeader / 2: " 200 ", 2 * maxHeader: " 431 ", 32 * maxHeader: " 431 "} {
		for _, start := range []string{"GET http://" + authority + "/ HTTP/1.1\r\nConnection: close\r\n", "CONNECT " + authority + " HTTP/1.1\r\n"} {
			conn := b.dialProxy(t)
			go func() { _, _ = io.WriteString(conn, start+"Host: x\r\nX: "+strings.Repeat("x", size)+"\r\n\r\n") }()
			head := make([]byte, 13)
			if _, err := io.ReadFull(conn, head); err != nil || !strings.Contains(string(head), want) {
				t.Errorf("%.7s with %d bytes: %q, %v, want %s", start, size, head, err, want)
			}
		}
	}
	if n := b.arrived.Load(); n != 1 {
		t.Errorf("%d requests arrived", n)
	}
}

func TestAnswerHeaderSize(t *testing.T) {
	b := newBench(t, "a.test:plain")
	b.plain.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Big", strings.Repeat("x", 2*maxHeader))
	})
	if code, body := b.get(t, "http://a.test:"+port(b.plain)+"/"); code != 502 {
		t.Errorf("%d %s", code, body)
	}
}

// A client that stands still is let go, wherever it does.
func TestIdleClient(t *testing.T) {
	b := newIdleBench(t, shortIdle, "a.test:plain", "a.test:secure", "tcp:b.test:plain")
	plain := "a.test:" + port(b.plain)
	for name, text := range map[string]string{
		"nothing":          "",
		"half a header":    "GET http://" + plain + "/ HTTP/1.1\r\nHost",
		"between requests": "GET http://" + plain + "/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body":           "POST http://" + plain + "/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345",
		"a denied body":    "POST http://evil.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345",
		"a body to us":     "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345",
		"no hello":         "CONNECT a.test:" + port(b.secure) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"half a hello":     "CONNECT a.test:" + port(b.secure) + " HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01\x02",
		"a tunnel":         "CONNECT b.test:" + port(b.plain) + " HTTP/1.1\r\nHost: x\r\n\r\nGET /",
	} {
		start := time.Now()
		b.raw(t, text) // tells if it stays open
		if took := time.Since(start); took < shortIdle/2 {
			t.Errorf("%s: ended after %v already", name, took)
		}
	}
}

func TestIdleTarget(t *testing.T) {
	b := newIdleBench(t, shortIdle)
	p := tcp(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	b.reload(policy.Policy{Allow: b.patterns(t, []string{"tcp:a.test:" + p}), Private: loopback()})
	if code, body := b.get(t, "http://a.test:"+p+"/"); code != http.StatusGatewayTimeout {
		t.Errorf("%d %s", code, body)
	}
	conn := b.open(t, "a.test:"+p)
	readAll(t, conn)
	eventually(t, "the tunnel's close line", func() bool {
		all := b.decisions(t)
		last := all[len(all)-1]
		return last.Event == policy.EventClose && last.Method == http.MethodConnect && strings.Contains(last.Reason, "timeout")
	})
}

// asked waits for a request, of which it takes the first bytes for all: what
// comes before it is no answer.
func asked(c net.Conn) { _, _ = c.Read(make([]byte, 4<<10)) }

// A client that does not read does not hold a target for ever.
func TestClientThatDoesNotRead(t *testing.T) {
	b := newIdleBench(t, shortIdle)
	let := make(chan struct{}, 2)
	p := tcp(t, func(c net.Conn) {
		defer func() { let <- struct{}{} }()
		asked(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		for block := make([]byte, 1<<20); ; {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	b.reload(policy.Policy{Allow: b.patterns(t, []string{"tcp:a.test:" + p}), Private: loopback()})
	_, _ = io.WriteString(b.open(t, "a.test:"+p), "go")
	_, _ = io.WriteString(b.dialProxy(t), "GET http://a.test:"+p+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
	for range 2 {
		select {
		case <-let:
		case <-time.After(testTime):
			t.Fatal("a target still writes to a client that does not read")
		}
	}
}

// Both directions count: a download alone keeps a tunnel, and a request, open.
func TestDownloadIsNotIdle(t *testing.T) {
	const parts = 24
	b := newIdleBench(t, shortIdle)
	p := tcp(t, func(c net.Conn) {
		asked(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
		beat := time.NewTicker(shortIdle / 8)
		defer beat.Stop()
		for range parts {
			<-beat.C
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
		}
	})
	b.reload(policy.Policy{Allow: b.patterns(t, []string{"tcp:a.test:" + p}), Private: loopback()})
	conn := b.open(t, "a.test:"+p)
	_, _ = io.WriteString(conn, "go")
	if answer := readAll(t, conn); !strings.HasSuffix(answer, strings.Repeat("x", parts)) {
		t.Errorf("tunnel: %q", answer)
	}
	if code, body := b.get(t, "http://a.test:"+p+"/"); code != 200 || body != strings.Repeat("x", parts) {
		t.Errorf("request: %d %q", code, body)
	}
}

func TestGate(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := newGate(l, 1, time.Minute)
	accepted := make(chan net.Conn)
	go func() {
		for range 2 {
			c, err := g.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	if len(g.slots) != 1 {
		t.Errorf("%d slots are taken", len(g.slots))
	}
	select {
	case <-accepted:
		t.Error("two connections passed a gate for one")
	case <-time.After(50 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close() // gives its slot back only once
	second := <-accepted
	_ = second.Close()
	if len(g.slots) != 0 {
		t.Errorf("%d slots are taken after all have closed", len(g.slots))
	}
}
