package runtime

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"testing"

	"carboy/runtime/egress"
	"carboy/runtime/initproto"
	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/veil"
)

// departed is a carboy-init that has ended.
func departed(t *testing.T) *initproto.Client {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "init.sock"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer l.Close()
		if far, err := l.Accept(); err == nil {
			_, _ = initproto.Handshake(bufio.NewReader(far), initproto.NewWriter(far))
			_ = far.Close()
		}
	}()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	c, err := initproto.NewClient(near, near)
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done() // else a start may be written before its end is seen
	return c
}

// TestEngineStartsByThePolicyInForce: one that was not put in force, and whose
// files stayed, does not get there by a proxy that is started again.
func TestEngineStartsByThePolicyInForce(t *testing.T) {
	engine, err := proxy.New(proxy.Allowlist)
	if err != nil {
		t.Fatal(err)
	}
	host, err := policy.ParsePattern("a.test")
	if err != nil {
		t.Fatal(err)
	}
	b := &Bottle{Record: Record{StateDir: t.TempDir(), Instance: "one"}, plan: &Plan{}, engine: engine, proxy: &cell{},
		proxyLog: &proxyLog{veil: veil.New(nil)}, live: egress.Live{Now: policy.Policy{Allow: []policy.Pattern{host}}}}
	if err := b.runEngine(t.Context()); err == nil {
		t.Fatal("it was started without its files")
	}
	file := filepath.Join(b.dir(), "proxy", policy.File)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"version":1,"allow":["a.test","wider.test"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.proxy.init = departed(t)
	if err := b.runEngine(t.Context()); err == nil {
		t.Error("it runs without a carboy-init")
	}
	want, err := b.engineFiles(b.live.Now)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != string(want[policy.File]) {
		t.Errorf("it starts by %s, %v", got, err)
	}
}
