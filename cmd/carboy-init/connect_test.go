package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// proxied answers one CONNECT, and closes the connection after that.
func proxied(t *testing.T, answer func(conn net.Conn, in io.Reader)) (address string, asked chan *http.Request) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	asked = make(chan *http.Request, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		r, err := http.ReadRequest(in)
		if err != nil {
			t.Error(err)
			return
		}
		asked <- r
		answer(conn, in)
	}()
	return l.Addr().String(), asked
}

func says(text string) func(net.Conn, io.Reader) {
	return func(conn net.Conn, _ io.Reader) { _, _ = io.WriteString(conn, text) }
}

// keeps says a text and then waits for more, as a server does that could be asked again.
func keeps(text string) func(net.Conn, io.Reader) {
	return func(conn net.Conn, in io.Reader) {
		_, _ = io.WriteString(conn, text)
		_, _ = io.Copy(io.Discard, in)
	}
}

func answers(text string) func(net.Conn, io.Reader) {
	return func(conn net.Conn, in io.Reader) {
		_, _ = io.WriteString(conn, text)
		_, _ = io.Copy(conn, in)
	}
}

func TestConnectCarries(t *testing.T) {
	for _, head := range []string{
		"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n",
		"HTTP/1.0 299\r\nContent-Length: 3\r\n\r\n", // which means nothing here
	} {
		address, asked := proxied(t, answers(head+"SSH-2.0-first\r\n"))
		var out strings.Builder
		if err := connect([]string{address, "git.test", "2222"}, strings.NewReader("hello"), &out); err != nil {
			t.Fatal(err)
		}
		if r := <-asked; r.Method != http.MethodConnect || r.RequestURI != "git.test:2222" || r.Host != "git.test:2222" {
			t.Errorf("asked %s %s (%s)", r.Method, r.RequestURI, r.Host)
		}
		if out.String() != "SSH-2.0-first\r\nhello" {
			t.Errorf("carried %q", out.String())
		}
	}
}

func TestConnectSaysWhy(t *testing.T) {
	const denied = "HTTP/1.1 403 Forbidden\r\ncontent-length: 20\r\n\r\nhost is not allowed\n"
	for name, tc := range map[string]struct {
		answer func(net.Conn, io.Reader)
		want   string
	}{
		"denied":         {says(denied), `"HTTP/1.1 403 Forbidden" "host is not allowed"`},
		"denied, kept":   {keeps(denied), `"HTTP/1.1 403 Forbidden" "host is not allowed"`},
		"kept, no end":   {keeps("HTTP/1.1 502 Bad Gateway\r\n\r\nno way"), `"HTTP/1.1 502 Bad Gateway" "no way"`},
		"kept, a flood":  {keeps("HTTP/1.1 403 No\r\n\r\n" + strings.Repeat("why", 200)), `whywh"`},
		"a false length": {keeps("HTTP/1.1 403 No\r\nContent-Length: -1\r\n\r\nwhy"), `"why"`},
		"elsewhere":      {says("HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n"), `refuses: "HTTP/1.1 301 Moved" ""`},
		"not yet":        {says("HTTP/1.1 100 Continue\r\n\r\n"), "refuses"},
		"no proxy":       {keeps("SSH-2.0-OpenSSH\r\n\r\n"), "SSH-2.0"},
		"an end":         {says(""), "EOF"},
		"an empty line":  {says("\r\n"), "refuses"},
		"a flood":        {says("HTTP/1.1 200 " + strings.Repeat("x", 1<<20)), "buffer full"},
		"escapes":        {says("HTTP/1.1 403 \x1b[2J\r\n\r\n"), `\x1b[2J`},
		"cut off":        {says("HTTP/1.1 200 OK\r\nX: y\r\n"), "EOF"},
		"200 to 199":     {says("HTTP/1.1 1200 OK\r\n\r\n"), "refuses"},
		"2000":           {says("HTTP/1.1 2000 OK\r\n\r\n"), "refuses"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, _ := proxied(t, tc.answer)
			began := time.Now()
			err := connect([]string{address, "git.test", "22"}, strings.NewReader(""), io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if took := time.Since(began); took > patience/2 {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestConnectBoundsSilence(t *testing.T) {
	for name, answer := range map[string]func(net.Conn, io.Reader){"silent": keeps(""), "half a line": keeps("HTTP/1.1 200")} {
		address, _ := proxied(t, answer)
		tunnel, err := dial(netip.MustParseAddrPort(address), 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		defer tunnel.Close()
		if _, err := open(tunnel, "git.test:22"); err == nil || !strings.Contains(err.Error(), "the proxy's answer: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConnectWithoutProxy(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := connect([]string{address, "git.test", "22"}, nil, nil); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}

func TestConnectRefusesArguments(t *testing.T) {
	for _, args := range [][]string{
		nil, {"127.0.0.1:1"}, {"127.0.0.1:1", "a"}, {"localhost:1", "a", "1"}, {"[::1]:1", "a", "1"},
		{"127.0.0.1:1", "a\r\nX: y", "1"}, {"127.0.0.1:1", "a b", "1"}, {"127.0.0.1:1", "a", "1", "b"},
	} {
		if err := connect(args, nil, nil); err == nil || strings.Contains(err.Error(), "refused") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
