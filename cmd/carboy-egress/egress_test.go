package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carboy/runtime/proxy/policy"
)

// names is a DNS that counts what it is asked.
type names struct {
	mu    sync.Mutex
	known map[string]string
	asked []string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	if a, ok := n.known[host]; ok {
		return []netip.Addr{netip.MustParseAddr(a)}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// bench is an engine with a proxy in front and counted targets behind.
type bench struct {
	*engine
	proxy   *httptest.Server
	names   *names
	log     *bytes.Buffer
	plain   *httptest.Server
	secure  *httptest.Server
	arrived atomic.Int64 // requests that reached a target
	heads   chan http.Header
}

func newBench(t *testing.T, allow ...string) *bench {
	t.Helper()
	b := &bench{log: &bytes.Buffer{}, heads: make(chan http.Header, 100),
		names: &names{known: map[string]string{"a.test": "127.0.0.1", "b.test": "127.0.0.1"}}}
	target := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.arrived.Add(1)
		b.heads <- r.Header
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		_, _ = io.WriteString(w, "served")
	})
	b.plain, b.secure = httptest.NewServer(target), httptest.NewTLSServer(target)
	p := policy.Policy{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	p.Allow = b.patterns(t, allow)
	b.engine = newEngine(p, b, time.Second)
	b.resolve = b.names
	b.proxy = httptest.NewServer(b.handler())
	t.Cleanup(func() { b.proxy.Close(); b.plain.Close(); b.secure.Close() })
	return b
}

// patterns puts the targets' ports for the words plain and secure.
func (b *bench) patterns(t *testing.T, allow []string) []policy.Pattern {
	t.Helper()
	words := strings.NewReplacer("plain", port(b.plain), "secure", port(b.secure))
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

func (b *bench) Write(p []byte) (int, error) { return b.log.Write(p) } // under the engine's lock

func port(s *httptest.Server) string {
	_, p, _ := net.SplitHostPort(s.Listener.Addr().String())
	return p
}

func (b *bench) decisions(t *testing.T) []policy.Decision {
	t.Helper()
	b.logMu.Lock()
	defer b.logMu.Unlock()
	var all []policy.Decision
	for line := range bytes.Lines(b.log.Bytes()) {
		var d policy.Decision
		if err := json.Unmarshal(line, &d); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		all = append(all, d)
	}
	return all
}

func (b *bench) client() *http.Client {
	proxy, _ := url.Parse(b.proxy.URL)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		Proxy: http.ProxyURL(proxy), DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the target's certificate is httptest's
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

// raw sends bytes to the proxy and returns all that comes back.
func (b *bench) raw(t *testing.T, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", b.proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn) // a reset ends it too
	return string(answer)
}

func TestHTTP(t *testing.T) {
	b := newBench(t, "a.test:plain")
	if code, body := b.get(t, "http://a.test:"+port(b.plain)+"/"); code != 200 || body != "served" {
		t.Fatalf("allowed: %d %s", code, body)
	}
	for _, url := range []string{
		"http://b.test:" + port(b.plain) + "/",      // another name of the same address
		"http://a.test:" + port(b.secure) + "/",     // another port
		"http://a.test/",                            // the default port
		"http://127.0.0.1:" + port(b.plain) + "/",   // the address itself
		"http://evil.a.test:" + port(b.plain) + "/", // below it
		"http://a.test.evil:" + port(b.plain) + "/", // ends otherwise
		"http://2130706433:" + port(b.plain) + "/",  // a number that is an address
		"http://[::1]:" + port(b.plain) + "/",
	} {
		if code, body := b.get(t, url); code != 403 || !strings.HasPrefix(body, "blocked: ") {
			t.Errorf("%s: %d %s", url, code, body)
		}
	}
	if n := b.arrived.Load(); n != 1 {
		t.Errorf("%d requests arrived, want the allowed one", n)
	}
	all := b.decisions(t)
	if len(all) != 9 || all[0].Verdict != "allow" || all[0].Addr != b.plain.Listener.Addr().String() || all[1].Verdict != "deny" {
		t.Errorf("decisions %+v", all)
	}
}

func TestDeniedNamesAreNotLookedUp(t *testing.T) {
	b := newBench(t, "a.test")
	b.get(t, "http://secret-data.evil.test/")
	b.get(t, "https://secret-data.evil.test/")
	if len(b.names.asked) != 0 {
		t.Errorf("asked the DNS for %q", b.names.asked)
	}
	b.get(t, "http://a.test/")
	if len(b.names.asked) == 0 {
		t.Error("control: an allowed name was not looked up")
	}
}

func TestHTTPS(t *testing.T) {
	b := newBench(t, "a.test:secure")
	if code, body := b.get(t, "https://a.test:"+port(b.secure)+"/"); code != 200 || body != "served" {
		t.Fatalf("allowed: %d %s", code, body)
	}
	if _, body := b.get(t, "https://b.test:"+port(b.secure)+"/"); !strings.Contains(body, "Forbidden") {
		t.Errorf("denied: %s", body)
	}
	if n := b.arrived.Load(); n != 1 {
		t.Errorf("%d requests arrived", n)
	}
	deadline := time.Now().Add(3 * time.Second)
	for { // the tunnel's end is logged when both sides have closed
		all := b.decisions(t)
		last := all[len(all)-1]
		if last.Event == "close" && last.Up > 0 && last.Down > 0 {
			return
		}
		if i := indexClose(all); i >= 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no close line: %+v", all)
		}
		time.Sleep(time.Millisecond)
	}
}

func indexClose(all []policy.Decision) int {
	for i, d := range all {
		if d.Event == "close" && d.Up > 0 && d.Down > 0 {
			return i
		}
	}
	return -1
}

// tunnelTo opens a CONNECT by hand.
func (b *bench) tunnelTo(t *testing.T, authority string) (net.Conn, int) {
	t.Helper()
	conn, err := net.Dial("tcp", b.proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(oneByte{conn}), nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, resp.StatusCode
}

// oneByte keeps a buffered reader from taking what follows the answer.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

func TestFronting(t *testing.T) {
	b := newBench(t, "a.test:secure")
	for _, tt := range []struct {
		sni  string
		pass bool
	}{{"b.test", false}, {"", false}, {"a.test.", false}, {"A.TEST", true}, {"a.test", true}} {
		conn, code := b.tunnelTo(t, "a.test:"+port(b.secure))
		if code != 200 {
			t.Fatalf("CONNECT: %d", code)
		}
		before := b.arrived.Load()
		client := tls.Client(conn, &tls.Config{ServerName: tt.sni, InsecureSkipVerify: true}) //nolint:gosec // see above
		_ = client.SetDeadline(time.Now().Add(3 * time.Second))
		_, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n")
		if err == nil {
			_, _ = io.ReadAll(client)
		}
		if passed := b.arrived.Load() > before; passed != tt.pass && tt.sni != "a.test." {
			t.Errorf("SNI %q: arrived %v, want %v", tt.sni, passed, tt.pass)
		}
	}
}

func TestNoTLSOnAPortThatIsNotDeclared(t *testing.T) {
	b := newBench(t, "a.test:plain", "tcp:b.test:plain")
	for _, tt := range []struct {
		host string
		pass bool
	}{{"a.test", false}, {"b.test", true}} {
		conn, code := b.tunnelTo(t, tt.host+":"+port(b.plain))
		if code != 200 {
			t.Fatalf("CONNECT %s: %d", tt.host, code)
		}
		_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		if passed := strings.Contains(string(answer), "served"); passed != tt.pass {
			t.Errorf("%s: answer %q", tt.host, answer)
		}
	}
	if n := b.arrived.Load(); n != 1 {
		t.Errorf("%d requests arrived, want the declared one", n)
	}
}

func TestAddressesThatAreNotPublic(t *testing.T) {
	b := newBench(t, "rebind.test:plain", "a.test:plain", "169.254.169.254", "10.0.0.1")
	b.reload(policy.Policy{Allow: b.policy.Load().Allow})
	for _, addr := range []string{"127.0.0.1", "169.254.169.254", "10.1.2.3", "192.168.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1", "fd00::1", "fe80::1"} {
		b.names.known["rebind.test"] = addr
		if code, body := b.get(t, "http://rebind.test:"+port(b.plain)+"/"); code != 403 {
			t.Errorf("%s: %d %s", addr, code, body)
		}
		if _, code := b.tunnelTo(t, "rebind.test:"+port(b.plain)); code != 403 {
			t.Errorf("CONNECT to %s: %d", addr, code)
		}
	}
	for _, literal := range []string{"http://169.254.169.254/latest/meta-data", "http://10.0.0.1/"} {
		if code, _ := b.get(t, literal); code != 403 {
			t.Errorf("%s: %d", literal, code)
		}
	}
	if n := b.arrived.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	b.reload(policy.Policy{Allow: b.policy.Load().Allow, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if code, _ := b.get(t, "http://a.test:"+port(b.plain)+"/"); code != 200 {
		t.Errorf("control: a declared address gives %d", code)
	}
}

func TestHeaders(t *testing.T) {
	b := newBench(t, "a.test:plain")
	authority := "a.test:" + port(b.plain)
	answer := b.raw(t, "GET http://"+authority+"/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n"+
		"Proxy-Authorization: Basic c2VjcmV0\r\nTE: trailers\r\nUpgrade: websocket\r\nX-Kept: 1\r\n\r\n")
	if !strings.Contains(answer, "served") || !strings.Contains(answer, "X-Host: "+authority) {
		t.Errorf("the Host that went on is not the URL's: %s", answer)
	}
	if strings.Contains(answer, "X-Hop") {
		t.Errorf("a hop-by-hop header came back: %s", answer)
	}
	head := <-b.heads
	for _, name := range []string{"X-Mine", "Proxy-Authorization", "Te", "Upgrade", "X-Forwarded-For", "Connection"} {
		if head.Get(name) != "" {
			t.Errorf("%s went on: %q", name, head.Get(name))
		}
	}
	if head.Get("X-Kept") != "1" {
		t.Error("control: an ordinary header was dropped")
	}
}

func TestMalformedRequests(t *testing.T) {
	b := newBench(t, "a.test:plain", "tcp:a.test:plain", "a.test")
	authority := "a.test:" + port(b.plain)
	for name, text := range map[string]string{
		"both lengths":     "POST http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"folded header":    "GET http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\n folded\r\nX Y: 1\r\n\r\n",
		"NUL":              "GET http://a.test\x00.evil/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"two hosts":        "GET http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
		"two ports":        "CONNECT a.test:80:80 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"user in the URL":  "GET http://u:p@" + authority + "/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"port 0":           "CONNECT a.test:0 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"no port":          "CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"https in the URL": "GET https://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"origin form":      "GET / HTTP/1.1\r\nHost: " + authority + "\r\n\r\n",
		"large header":     "GET http://" + authority + "/ HTTP/1.1\r\nHost: a.test\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n",
	} {
		answer := b.raw(t, text)
		if strings.Contains(answer, " 200 ") || strings.Contains(answer, "served") {
			t.Errorf("%s: %.80s", name, answer)
		}
	}
	if n := b.arrived.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	if code, _ := b.get(t, "http://"+authority+"/"); code != 200 {
		t.Errorf("control: %d", code)
	}
}

func TestHealth(t *testing.T) {
	b := newBench(t)
	resp, err := http.Get(b.proxy.URL + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || !strings.Contains(string(body), "healthy") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestIdleTunnelEnds(t *testing.T) {
	b := newBench(t, "tcp:a.test:plain")
	conn, code := b.tunnelTo(t, "a.test:"+port(b.plain))
	if code != 200 {
		t.Fatalf("CONNECT: %d", code)
	}
	start := time.Now()
	_ = conn.SetDeadline(start.Add(10 * time.Second))
	_, _ = io.ReadAll(conn)
	if took := time.Since(start); took < 500*time.Millisecond || took > 5*time.Second {
		t.Errorf("ended after %v, the limit is 1s", took)
	}
}

func TestReload(t *testing.T) {
	b := newBench(t, "tcp:a.test:plain")
	b.idle = time.Minute
	dir := t.TempDir()
	save := func(p policy.Policy) {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		next := filepath.Join(dir, "next")
		if err := os.WriteFile(next, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, policyFile)); err != nil {
			t.Fatal(err)
		}
	}
	save(*b.policy.Load())
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	go func() { followed <- b.follow(ctx, dir) }()
	conn, code := b.tunnelTo(t, "a.test:"+port(b.plain))
	if code != 200 {
		t.Fatalf("CONNECT: %d", code)
	}
	closed := make(chan struct{})
	go func() { _, _ = io.ReadAll(conn); close(closed) }()
	deadline := time.After(5 * time.Second)
	for {
		save(policy.Policy{Allow: b.patterns(t, []string{"b.test:plain"})}) // again, as the watch may not stand yet
		select {
		case <-closed:
		case <-time.After(50 * time.Millisecond):
			continue
		case <-deadline:
			t.Fatal("a tunnel that is no longer allowed stays open")
		}
		break
	}
	if _, code := b.tunnelTo(t, "a.test:"+port(b.plain)); code != 403 {
		t.Errorf("the old policy is in force: %d", code)
	}
	if err := os.WriteFile(filepath.Join(dir, policyFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, code := b.tunnelTo(t, "a.test:"+port(b.plain)); code != 403 {
		t.Errorf("a bad policy changed something: %d", code)
	}
	cancel()
	if err := <-followed; err != nil {
		t.Error(err)
	}
}
