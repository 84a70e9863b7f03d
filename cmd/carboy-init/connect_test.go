package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// proxied answers one CONNECT with a text and then echoes.
func proxied(t *testing.T, answer string) (address string, asked chan *http.Request) {
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
		_, _ = io.WriteString(conn, answer)
		if strings.Contains(answer, " 200 ") && strings.Contains(answer, "\r\n\r\n") {
			_, _ = io.Copy(conn, in)
		}
	}()
	return l.Addr().String(), asked
}

func TestConnectCarries(t *testing.T) {
	address, asked := proxied(t, "HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nSSH-2.0-first\r\n")
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

func TestConnectSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"denied":     {"HTTP/1.1 403 Forbidden\r\nContent-Length: 20\r\n\r\nhost is not allowed\n", `"HTTP/1.1 403 Forbidden" "host is not allowed"`},
		"no proxy":   {"SSH-2.0-OpenSSH\r\n\r\n", "SSH-2.0"},
		"silent":     {"", "EOF"},
		"a flood":    {"HTTP/1.1 200 " + strings.Repeat("x", 1<<20), "buffer full"},
		"escapes":    {"HTTP/1.1 403 \x1b[2J\r\n\r\n", `\x1b[2J`},
		"cut off":    {"HTTP/1.1 200 OK\r\nX: y\r\n", "EOF"},
		"200 to 199": {"HTTP/1.1 1200 OK\r\n\r\n", "refuses"},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := proxied(t, tc.answer)
			err := connect([]string{address, "git.test", "22"}, strings.NewReader(""), io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// TestRefusalOfAProxyThatGoesOn: it does not close the connection.
func TestRefusalOfAProxyThatGoesOn(t *testing.T) {
	far, near := net.Pipe()
	defer far.Close()
	go func() {
		_, _ = http.ReadRequest(bufio.NewReader(far))
		_, _ = io.WriteString(far, "HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\n\r\nno\n")
	}()
	_, err := open(near, "git.test:22")
	var refused *refusal
	if !errors.As(err, &refused) || refused.reason != "no" {
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
