package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"carboy/runtime/proxy/policy"
)

func TestHTTPS(t *testing.T) {
	b := newBench(t, "a.test:secure")
	if code, body := b.get(t, "https://a.test:"+port(b.secure)+"/"); code != 200 || body != "served" {
		t.Fatalf("allowed: %d %s", code, body)
	}
	if d := b.closeLine(t); d.Up == 0 || d.Down == 0 || d.Method != http.MethodConnect || d.Verdict != "" {
		t.Errorf("close line %+v", d)
	}
	if _, body := b.get(t, "https://b.test:"+port(b.secure)+"/"); !strings.Contains(body, "Forbidden") {
		t.Errorf("denied: %s", body)
	}
	if n := b.arrived.Load(); n != 1 {
		t.Errorf("%d requests arrived", n)
	}
	all := b.decisions(t)
	if len(all) != 3 || all[0].Verdict != policy.Allow || all[0].Addr != b.secure.Listener.Addr().String() || all[0].Rule != "a.test:"+port(b.secure) ||
		all[1].Event != policy.EventClose || all[2].Verdict != policy.Deny || all[2].Host != "b.test" {
		t.Errorf("%+v", all)
	}
	if answer := b.raw(t, "CONNECT b.test:443 HTTP/1.1\r\nHost: a.test:"+port(b.secure)+"\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 403 ") ||
		!strings.Contains(answer, verdictHeader+": denied\r\n") || !strings.HasSuffix(answer, "blocked: host b.test is not allowed\n") {
		t.Errorf("%s", answer)
	}
}

// trickle writes byte by byte: a hello comes in as many pieces as it likes.
type trickle struct{ net.Conn }

func (c trickle) Write(p []byte) (int, error) {
	for i := range p {
		if n, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i + n, err
		}
	}
	return len(p), nil
}

// Two names on one address: the one that is allowed does not open the other.
func TestFronting(t *testing.T) {
	b := newBench(t, "a.test:secure", "127.0.0.1:secure")
	for _, tt := range []struct {
		host, sni string
		pass      bool
	}{
		{"a.test", "b.test", false}, {"a.test", "", false}, {"a.test", "x.a.test", false}, {"a.test", "a.test.b.test", false},
		{"127.0.0.1", "b.test", false}, {"127.0.0.1", "a.test", false},
		{"127.0.0.1", "", true}, {"a.test", "A.TEST", true}, {"a.test", "a.test", true}, {"A.test.", "a.test", true},
	} {
		for _, slow := range []bool{false, true} {
			conn := b.open(t, tt.host+":"+port(b.secure))
			if slow {
				conn = trickle{conn}
			}
			before := b.arrived.Load()
			client := tls.Client(conn, &tls.Config{ServerName: tt.sni, InsecureSkipVerify: true})
			_, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n")
			if err == nil {
				_, _ = io.ReadAll(client)
			}
			if passed := b.arrived.Load() > before; passed != tt.pass {
				t.Errorf("CONNECT %s, SNI %q: arrived %v, want %v (%v)", tt.host, tt.sni, passed, tt.pass, err)
			}
		}
	}
	var refused int
	for _, d := range b.decisions(t) {
		if d.Verdict == policy.Deny && strings.HasPrefix(d.Reason, "TLS names ") && d.Rule != "" && d.Addr != "" {
			refused++
		}
	}
	if refused != 12 {
		t.Errorf("%d refusals in the log, want 12", refused)
	}
}

func TestCheckName(t *testing.T) {
	for _, tt := range []struct {
		name, host string
		ok         bool
	}{
		{"kay.test", "kay.test", true}, {"KAY.test", "kay.test", true}, {"", "10.0.0.1", true},
		{"\u212aay.test", "kay.test", false}, {"kay.test.", "kay.test", false}, {"kay.test\x00", "kay.test", false}, {"*.test", "kay.test", false},
		{"", "kay.test", false}, {"10.0.0.1", "10.0.0.1", false}, {"10.0.0.1", "kay.test", false},
	} {
		if err := checkName(tt.name, tt.host); (err == nil) != tt.ok || (err != nil && !isDenied(err)) {
			t.Errorf("TLS %q, CONNECT %s: %v", tt.name, tt.host, err)
		}
	}
}

func TestOnlyTLSUnlessDeclared(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	b := newBench(t, "a.test:plain", "tcp:b.test:plain")
	for _, text := range []string{request, "SSH-2.0-x\r\n", "\x16\x03\x01\x00\x05hello", "\x16\x03\x01\xff\xff" + strings.Repeat("x", 70_000), "\x80\x2e\x01\x03\x01" + strings.Repeat("\x00", 46)} {
		conn := b.open(t, "a.test:"+port(b.plain))
		_, _ = io.WriteString(conn, text)
		if answer := readAll(t, conn); answer != "" {
			t.Errorf("%.10q is answered %q", text, answer)
		}
	}
	if n := b.arrived.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	for _, d := range b.decisions(t) {
		if d.Verdict != policy.Deny || !strings.HasPrefix(d.Reason, "no TLS on a port that is not declared tcp") {
			t.Errorf("logged as %+v", d)
		}
	}
	conn := b.open(t, "b.test:"+port(b.plain))
	_, _ = io.WriteString(conn, request)
	if answer := readAll(t, conn); !strings.Contains(answer, "served") {
		t.Errorf("control: declared, and the answer is %q", answer)
	}
}

// What a client sends together with its CONNECT is part of the tunnel.
func TestEarlyBytes(t *testing.T) {
	b := newBench(t, "tcp:a.test:plain")
	answer := b.raw(t, "CONNECT a.test:"+port(b.plain)+" HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || !strings.HasSuffix(answer, "served\r\n0\r\nX-Last: 1\r\n\r\n") {
		t.Errorf("%q", answer)
	}
	conn := b.open(t, "a.test:"+port(b.plain)) // control: and what comes later
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if answer := readAll(t, conn); !strings.Contains(answer, "served") {
		t.Errorf("control: %q", answer)
	}
}

// Each direction ends by itself.
func TestHalfClose(t *testing.T) {
	b := newBench(t)
	p := tcp(t, func(c net.Conn) {
		all, _ := io.ReadAll(c)
		_, _ = c.Write(append([]byte("got "), all...))
	})
	b.reload(policy.Policy{Allow: b.patterns(t, []string{"tcp:a.test:" + p}), Private: loopback()})
	conn := b.open(t, "a.test:"+p)
	_, _ = io.WriteString(conn, "all of it")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer := readAll(t, conn); answer != "got all of it" {
		t.Errorf("%q", answer)
	}
	if d := b.closeLine(t); d.Up != 9 || d.Down != 13 || d.Reason != "" {
		t.Errorf("%+v", d)
	}
}

func TestTargetThatIsNotThere(t *testing.T) {
	b := newBench(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, p, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	b.reload(policy.Policy{Allow: b.patterns(t, []string{"a.test:" + p}), Private: loopback()})
	if _, code := b.tunnelTo(t, "a.test:"+p); code != 502 {
		t.Errorf("CONNECT: %d", code)
	}
	if code, body := b.get(t, "http://a.test:"+p+"/"); code != 502 || !strings.HasPrefix(body, "not reached: ") {
		t.Errorf("%d %s", code, body)
	}
	for _, d := range b.decisions(t) {
		if d.Verdict != policy.Allow || d.Event != policy.EventDecision || !strings.Contains(d.Reason, "refused") {
			t.Errorf("%+v", d)
		}
	}
}
