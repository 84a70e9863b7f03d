package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"carboy/runtime/proxy/policy"
)

// echo is a target for tunnels that shows whether they live.
func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// lives says something into a tunnel and waits to hear it.
func lives(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatalf("the tunnel is dead: %v", err)
	}
}

func TestReloadByRename(t *testing.T) {
	b := newBench(t)
	p := tcp(t, echo)
	both := policy.Policy{Allow: b.patterns(t, []string{"tcp:a.test:" + p, "tcp:b.test:" + p}), Private: loopback()}
	b.save(t, both)
	eventually(t, "the first policy", func() bool { return len(b.policy.Load().Allow) == 2 })
	ends, stays := b.open(t, "a.test:"+p), b.open(t, "b.test:"+p)
	lives(t, ends)
	lives(t, stays)
	b.save(t, policy.Policy{Allow: both.Allow[1:], Private: loopback()})
	readAll(t, ends)
	lives(t, stays)
	if d := b.closeLine(t); d.Host != "a.test" || d.Up != 1 || d.Down != 1 || d.Reason != "host a.test is not allowed" {
		t.Errorf("%+v", d)
	}
	if _, code := b.tunnelTo(t, "a.test:"+p); code != 403 {
		t.Errorf("a new tunnel: %d", code)
	}
}

func TestWhatAReloadEnds(t *testing.T) {
	p := tcp(t, echo)
	for name, tt := range map[string]struct {
		next policy.Policy
		ends string
	}{
		"the same":    {policy.Policy{Private: loopback()}, ""},
		"the host":    {policy.Policy{Allow: []policy.Pattern{{}}, Private: loopback()}, "host a.test is not allowed"},
		"the address": {policy.Policy{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}, "127.0.0.1 is loopback"},
	} {
		b := newBench(t)
		old := policy.Policy{Allow: b.patterns(t, []string{"tcp:a.test:" + p}), Private: loopback()}
		if tt.next.Allow == nil {
			tt.next.Allow = old.Allow
		}
		b.reload(old)
		conn := b.open(t, "a.test:"+p)
		lives(t, conn)
		b.reload(tt.next)
		if tt.ends == "" {
			lives(t, conn)
			continue
		}
		readAll(t, conn)
		if d := b.closeLine(t); d.Reason != tt.ends {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// To declare a port no longer tcp: ends what was never asked to be TLS.
func TestReloadThatAsksForTLS(t *testing.T) {
	b := newBench(t)
	p := tcp(t, echo)
	b.reload(policy.Policy{Allow: b.patterns(t, []string{"tcp:a.test:" + p}), Private: loopback()})
	conn := b.open(t, "a.test:"+p)
	lives(t, conn)
	b.reload(policy.Policy{Allow: b.patterns(t, []string{"a.test:" + p}), Private: loopback()})
	readAll(t, conn)
	if d := b.closeLine(t); !strings.Contains(d.Reason, "no longer declared tcp") {
		t.Errorf("%+v", d)
	}
}

func TestReloadEndsRequests(t *testing.T) {
	b := newBench(t, "a.test:plain")
	gone := make(chan struct{})
	b.plain.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/stream" {
			<-r.Context().Done()
			close(gone)
		}
	})
	url := "http://a.test:" + port(b.plain) + "/"
	if code, _ := b.get(t, url); code != 200 {
		t.Fatal(code)
	}
	resp, err := b.client().Get(url + "stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b.reload(policy.Policy{Allow: b.policy.Load().Allow}) // allowed, and a connection to it was kept
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("an answer that was cut looks whole: %q", body)
	}
	<-gone
	if d := b.closeLine(t); d.Reason != "127.0.0.1 is loopback" {
		t.Errorf("%+v", d)
	}
	if code, body := b.get(t, url); code != 403 {
		t.Errorf("a kept connection outlives its permission: %d %s", code, body)
	}
}

// A reload between the decision and the use counts.
func TestEnterDecidesAgain(t *testing.T) {
	b := newBench(t, "a.test:plain")
	decided := target{"a.test", b.patterns(t, []string{"a.test:plain"})[0].Ports()[0]}
	for _, tt := range []struct {
		allow string
		ok    bool
	}{{"a.test:plain", true}, {"b.test:plain", false}} {
		b.reload(policy.Policy{Allow: b.patterns(t, []string{tt.allow}), Private: loopback()})
		p := &passage{target: decided, end: func() {}}
		err := b.enter(p, netip.MustParseAddr("127.0.0.1"))
		if (err == nil) != tt.ok || (b.leave(p) == nil) != tt.ok || len(b.live) != 0 {
			t.Errorf("%s: %v, %d live", tt.allow, err, len(b.live))
		}
	}
}

// followed is a directory's policies as an engine would get them.
func followed(t *testing.T, w *watcher) <-chan policy.Policy {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	got, ended := make(chan policy.Policy, 1000), make(chan error, 1)
	go func() { ended <- w.follow(ctx, taker{got}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.close()
	})
	return got
}

// taker passes policies on.
type taker struct{ policies chan<- policy.Policy }

func (t taker) take(p policy.Policy, _ string) { t.policies <- p }
func (taker) keep(error)                       {}

func next(t *testing.T, policies <-chan policy.Policy) policy.Policy {
	t.Helper()
	select {
	case p := <-policies:
		return p
	case <-time.After(testTime):
		t.Fatal("no policy came")
		panic("unreachable")
	}
}

// Where the kernel tells of no change, SIGHUP does.
func TestReloadByHangup(t *testing.T) {
	b := newBench(t, "a.test:plain")
	w, err := watch(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w.dir = b.dir // which it does not watch
	policies := followed(t, w)
	b.save(t, policy.Policy{Allow: b.patterns(t, []string{"b.test:plain"})})
	eventually(t, "control: the engine that watches", func() bool { return b.policy.Load().Allow[0].Host() == "b.test" })
	if len(policies) != 0 {
		t.Fatal("the watch that should see nothing sees the change")
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if p := next(t, policies); len(p.Allow) != 1 || p.Allow[0].Host() != "b.test" {
		t.Errorf("%+v", p)
	}
}

func TestBadPolicyChangesNothing(t *testing.T) {
	b := newBench(t, "a.test:plain")
	w, err := watch(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	policies := followed(t, w)
	name := filepath.Join(b.dir, policy.File)
	for _, bad := range []string{"", "{", `{"version":2}`, `{"version":1,"allow":["*"]}`, `{"version":1,"alow":[]}`} {
		if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if code, _ := b.get(t, "http://a.test:"+port(b.plain)+"/"); code != 200 {
		t.Errorf("the old policy is not in force: %d", code)
	}
	b.save(t, policy.Policy{Allow: b.patterns(t, []string{"b.test:plain"})})
	for {
		p := next(t, policies)
		if len(p.Allow) != 1 {
			t.Fatalf("a bad policy was handed on: %+v", p)
		}
		if p.Allow[0].Host() == "b.test" {
			return
		}
	}
}

// The supervisor waits for what the engine says of a policy.
func TestReloadIsTold(t *testing.T) {
	b := newBench(t)
	told := func() (lines []policy.ReloadLine) {
		for line := range strings.Lines(b.logged()) {
			var l policy.ReloadLine
			if err := json.Unmarshal([]byte(line), &l); err == nil && l.Event == policy.EventReload {
				lines = append(lines, l)
			}
		}
		return lines
	}
	b.save(t, policy.Policy{Allow: b.patterns(t, []string{"b.test"}), Paused: true})
	text, err := os.ReadFile(filepath.Join(b.dir, policy.File))
	if err != nil {
		t.Fatal(err)
	}
	hash := fmt.Sprintf("%x", sha256.Sum256(text))
	eventually(t, "the line of a policy", func() bool {
		return slices.ContainsFunc(told(), func(l policy.ReloadLine) bool { return l.Status == policy.Reloaded && l.Hash == hash })
	})
	if _, code := b.tunnelTo(t, "b.test:443"); code != 403 {
		t.Errorf("paused: %d", code)
	}
	if err := os.WriteFile(filepath.Join(b.dir, policy.File), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the line of none", func() bool {
		return slices.ContainsFunc(told(), func(l policy.ReloadLine) bool { return l.Status != policy.Reloaded && l.Detail != "" && l.Hash == "" })
	})
}
