package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func valid(t *testing.T) Config {
	return Config{
		Instance: "abc", StateDir: t.TempDir(), PluginDir: "/usr/lib/cni", ProxyPort: 8888,
		Conflist: []byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"ptp"}]}`),
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"instance":            func(c *Config) { c.Instance = "../x" },
		"the shared instance": func(c *Config) { c.Instance = "egress" },
		"relative state":      func(c *Config) { c.StateDir = "x" },
		"relative plugins":    func(c *Config) { c.PluginDir = "" },
		"no port":             func(c *Config) { c.ProxyPort = 0 },
		"conflist":            func(c *Config) { c.Conflist = []byte("{}") },
		"loopback resolver":   func(c *Config) { c.Resolvers = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
		"metadata resolver":   func(c *Config) { c.Resolvers = []netip.Addr{netip.MustParseAddr(metadata)} },
		"version 6 resolver":  func(c *Config) { c.Resolvers = []netip.Addr{netip.MustParseAddr("2001:4860:4860::8888")} },
	} {
		t.Run(name, func(t *testing.T) {
			c := valid(t)
			change(&c)
			if _, err := New(c); !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := New(valid(t)); err != nil {
		t.Error(err)
	}
}

func TestRecordIsStored(t *testing.T) {
	n, err := New(valid(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(n.Record())
	if err != nil {
		t.Fatal(err)
	}
	var back Record
	if err := json.Unmarshal(b, &back); err != nil || back != n.Record() || back.Own {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestUpAndDown(t *testing.T) {
	eachPlugins(t, func(t *testing.T, dir string) {
		w := newWorld(t)
		before := w.snapshot(t)
		ends := map[string]func(*Network) error{
			"closed before": (*Network).down,
			"named": func(n *Network) error {
				return errors.Join(Detach(context.Background(), n.Record(), n.EgressPath()), n.Close())
			},
			"held": func(n *Network) error {
				return errors.Join(Detach(context.Background(), n.Record(), ""), n.Close())
			},
			"twice": func(n *Network) error { return errors.Join(n.down(), n.down()) },
		}
		for name, end := range ends {
			n, err := New(w.config("abc", dir))
			must(t, err)
			unchanged(t, "New", before, w.snapshot(t))
			must(t, n.Open())
			unchanged(t, "Open", before, w.snapshot(t))
			must(t, n.Attach(t.Context()))
			must(t, n.Verify())
			must(t, n.Verify())
			if text := rules(t); strings.Contains(text, "table ip filter") || !strings.Contains(text, "table ip carboy") {
				t.Errorf("rules while up:\n%s", text)
			}
			must(t, end(n))
			unchanged(t, name, before, w.snapshot(t))
		}
	})
}

func TestNewLeavesNothingOnError(t *testing.T) {
	w := newWorld(t)
	before := w.snapshot(t)
	c := w.config("abc", pluginDirs(t)[0])
	c.Range = netip.MustParsePrefix("203.0.113.128/25")
	_, err := New(c)
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"up0"`) || !strings.Contains(err.Error(), "--egress-range") {
		t.Errorf("overlap: %v", err)
	}
	unchanged(t, "New", before, w.snapshot(t))
}

func TestDetachBeforeAnythingWasMade(t *testing.T) {
	w := newWorld(t)
	before := w.snapshot(t)
	n, err := New(w.config("abc", pluginDirs(t)[0]))
	must(t, err)
	must(t, Detach(t.Context(), n.Record(), "/proc/self/ns/net"))
	unchanged(t, "Detach", before, w.snapshot(t))
}

// TestManyAtOnce also covers the last to leave against the first to come: each
// bottle looks for the table as soon as it is up.
func TestManyAtOnce(t *testing.T) {
	eachPlugins(t, func(t *testing.T, dir string) {
		w := newWorld(t)
		before := w.snapshot(t)
		site := serve(t, w.internet, site, 443)
		const bottles, rounds = 6, 4
		var seen sync.Map
		var all sync.WaitGroup
		for i := range bottles {
			all.Go(func() {
				for r := range rounds {
					if err := w.comeAndGo(fmt.Sprintf("b%dr%d", i, r), dir, &seen); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if got := site.arrived.Load(); got != bottles*rounds {
			t.Errorf("%d connections of %d arrived", got, bottles*rounds)
		}
		unchanged(t, "all down", before, w.snapshot(t))
	})
}

func (w *world) comeAndGo(instance, dir string, seen *sync.Map) (err error) {
	n, err := New(w.config(instance, dir))
	if err != nil {
		return fmt.Errorf("new: %w", err)
	}
	if err := n.Open(); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, n.down()) }()
	if err := n.Attach(context.Background()); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	given, err := n.record.reserved()
	if err != nil || len(given) != 1 {
		return fmt.Errorf("addresses %v, %w", given, err)
	}
	if other, taken := seen.LoadOrStore(given[0], instance); taken {
		return fmt.Errorf("%s has the address %s of %s", instance, given[0], other)
	}
	defer seen.Delete(given[0])
	if !asksWithin(10*time.Second, n.egress, "tcp", site, 443) { // beside much else
		return errors.New("no way out")
	}
	return n.Verify()
}

func TestDialProxy(t *testing.T) {
	w := newWorld(t)
	n := w.bottle(t, w.config("abc", pluginDirs(t)[0]))
	proxy := serve(t, n.egress, ProxyAddr.String(), proxyPort)
	conn, err := n.DialProxy(t.Context())
	must(t, err)
	conn.Close()
	await(t, "arrival", func() bool { return proxy.arrived.Load() == 1 })
	// The host has no way there.
	if c, err := net.DialTimeout("tcp", ProxyAddr.String()+":8888", patience); err == nil {
		c.Close()
		t.Error("the host reaches the proxy")
	}
}

// A plugin that fails, in the shell: "egress" or "internal" names the network.
const failing = `#!/bin/sh
conf=$(cat)
if [ "$CNI_COMMAND" = ADD ]; then
	case "$conf" in *carboy-%s*) %s; echo '{"cniVersion":"1.0.0","code":99,"msg":"the moon is full"}'; exit 1;; esac
fi
printf %%s "$conf" | exec %s/ptp
`

func faultyPlugins(t *testing.T, good, network, work string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Symlink(filepath.Join(good, "host-local"), filepath.Join(dir, "host-local")))
	must(t, os.WriteFile(filepath.Join(dir, "ptp"), fmt.Appendf(nil, failing, network, work, good), 0o755))
	return dir
}

func TestFailingPlugin(t *testing.T) {
	eachPlugins(t, func(t *testing.T, good string) {
		w := newWorld(t)
		before := w.snapshot(t)
		done := fmt.Sprintf(`printf %%%%s "$conf" | %s/ptp >/dev/null`, good)
		for _, network := range []string{"egress", "internal"} {
			for _, work := range []string{":", strings.ReplaceAll(done, "%%", "%")} {
				c := w.config("abc", faultyPlugins(t, good, network, work))
				n, err := New(c)
				must(t, err)
				must(t, n.Open())
				err = n.Attach(t.Context())
				if err == nil || !strings.Contains(err.Error(), "the moon is full") || !strings.Contains(err.Error(), `"ptp"`) {
					t.Errorf("attach: %v", err)
				}
				unchanged(t, network+" fails, before Close", before, w.snapshot(t))
				for name, ns := range map[string]*os.File{"egress": n.egress, "isolated": n.isolated} {
					must(t, inNamespace(ns, func() error { return verifyLinks() }))
					t.Log(name, "is empty")
				}
				must(t, n.down())
				unchanged(t, network+" fails", before, w.snapshot(t))
			}
		}
	})
}

func TestHangingPlugin(t *testing.T) {
	w := newWorld(t)
	before := w.snapshot(t)
	n, err := New(w.config("abc", faultyPlugins(t, pluginDirs(t)[0], "egress", "touch /run/hangs; sleep 60")))
	must(t, err)
	must(t, n.Open())
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	go func() {
		for {
			if _, err := os.Stat("/run/hangs"); err == nil {
				cancel(enough)
				return
			}
		}
	}()
	if err := n.Attach(ctx); !errors.Is(err, enough) {
		t.Errorf("attach: %v", err)
	}
	must(t, n.down())
	unchanged(t, "hanging plugin", before, w.snapshot(t))
}
