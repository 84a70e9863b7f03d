package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carboy/runtime/proxy/policy"
)

// testTime is for what comes at once unless something is wrong.
const testTime = 10 * time.Second

// bench is an engine as it is served, with counted targets behind.
type bench struct {
	*engine
	dir     string // its policy's
	addr    string // its own
	names   *names
	log     bytes.Buffer // under the engine's lock
	plain   *httptest.Server
	secure  *httptest.Server
	arrived atomic.Int64 // requests that reached a target
	heads   chan *http.Request
}

// newBench knows a.test and b.test, which are one address.
func newBench(t *testing.T, allow ...string) *bench {
	t.Helper()
	return newIdleBench(t, time.Minute, allow...)
}

func newIdleBench(t *testing.T, idle time.Duration, allow ...string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), heads: make(chan *http.Request, 100), names: &names{known: map[string][]string{}}}
	b.names.set("a.test", "127.0.0.1")
	b.names.set("b.test", "127.0.0.1")
	b.plain, b.secure = httptest.NewUnstartedServer(http.HandlerFunc(b.serveTarget)), httptest.NewUnstartedServer(http.HandlerFunc(b.serveTarget))
	b.secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that never come
	b.plain.Start()
	b.secure.StartTLS()
	t.Cleanup(func() { b.plain.Close(); b.secure.Close() })
	p := policy.Policy{Private: loopback(), Allow: b.patterns(t, allow)}
	b.save(t, p)
	b.engine = newEngine(p, b, idle)
	b.resolve = b.names
	b.start(t)
	return b
}

// start serves as main does.
func (b *bench) start(t *testing.T) {
	t.Helper()
	w, err := watch(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.serve(ctx, l, w) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		w.close()
	})
}

// serveTarget is both targets: /echo returns the body, all else a word.
func (b *bench) serveTarget(w http.ResponseWriter, r *http.Request) {
	b.arrived.Add(1)
	select {
	case b.heads <- r:
	default: // nobody looks at so many
	}
	if r.URL.Path == "/echo" {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(prompt{w}, r.Body)
		return
	}
	w.Header().Set("X-Host", r.Host)
	w.Header().Set("Connection", "X-Hop")
	w.Header().Set("X-Hop", "1")
	w.Header().Set("Proxy-Authenticate", "Basic")
	w.Header().Set(verdictHeader, "denied")
	w.Header().Set("Trailer", "X-Last")
	_, _ = io.WriteString(w, "served")
	w.Header().Set("X-Last", "1")
}

func (b *bench) Write(p []byte) (int, error) { return b.log.Write(p) }

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }

// patterns puts the targets' ports for the words plain and secure.
func (b *bench) patterns(t *testing.T, allow []string) []policy.Pattern {
	t.Helper()
	words := strings.NewReplacer(":plain", ":"+port(b.plain), ":secure", ":"+port(b.secure))
	var out []policy.Pattern
	for _, a := range allow {
		p, err := policy.ParsePattern(words.Replace(a))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// save puts a policy in the directory as carboy does: whole, by renaming.
func (b *bench) save(t *testing.T, p policy.Policy) {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(b.dir, "next")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(b.dir, policy.File)); err != nil {
		t.Fatal(err)
	}
}

func port(s *httptest.Server) string {
	_, p, _ := net.SplitHostPort(s.Listener.Addr().String())
	return p
}

// tcp starts a target that is not HTTP and returns its port.
func tcp(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

func (b *bench) decisions(t *testing.T) []policy.Decision {
	t.Helper()
	var all []policy.Decision
	for line := range strings.Lines(b.logged()) {
		var d policy.Decision
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if d.Event != policy.EventReload {
			all = append(all, d)
		}
	}
	return all
}

func (b *bench) logged() string {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	return b.log.String()
}

// closeLine waits for the first line that tells of an end.
func (b *bench) closeLine(t *testing.T) (d policy.Decision) {
	t.Helper()
	eventually(t, "a close line", func() bool {
		for _, d = range b.decisions(t) {
			if d.Event == policy.EventClose {
				return true
			}
		}
		return false
	})
	return d
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(testTime); !is(); <-again.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (b *bench) client() *http.Client {
	return &http.Client{Timeout: testTime, Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: b.addr}), DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
}

func (b *bench) get(t *testing.T, address string) (int, string) {
	t.Helper()
	resp, err := b.client().Get(address)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (b *bench) dialProxy(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp4", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testTime)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// raw sends bytes to the proxy and returns all that comes back.
func (b *bench) raw(t *testing.T, text string) string {
	t.Helper()
	conn := b.dialProxy(t)
	_, _ = io.WriteString(conn, text) // it may be refused half way
	return readAll(t, conn)
}

// readAll reads until the other end closes, which it has to.
func readAll(t *testing.T, conn net.Conn) string {
	t.Helper()
	all, err := io.ReadAll(conn) // a reset ends it too
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stays open after %q", all)
	}
	return string(all)
}

// tunnelTo opens a CONNECT by hand.
func (b *bench) tunnelTo(t *testing.T, authority string) (net.Conn, int) {
	t.Helper()
	conn := b.dialProxy(t)
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(oneByte{conn}), nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, resp.StatusCode
}

// open is tunnelTo where it has to succeed.
func (b *bench) open(t *testing.T, authority string) net.Conn {
	t.Helper()
	conn, code := b.tunnelTo(t, authority)
	if code != http.StatusOK {
		t.Fatalf("CONNECT %s: %d", authority, code)
	}
	return conn
}

// oneByte keeps a buffered reader from taking what follows the answer.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }
