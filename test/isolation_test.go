package test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"carboy/test/world"
)

// engines are those that can be had here.
func engines(t *testing.T) []string {
	t.Helper()
	if shared.pipelock == "" {
		t.Log("SKIPPED with pipelock: no binary of that name in PATH, nor $PIPELOCK")
		return []string{"allowlist"}
	}
	return []string{"allowlist", "pipelock"}
}

func engineFlags(engine string) []string {
	if engine == "pipelock" {
		return []string{"--proxy", "pipelock", "--proxy-binary", shared.pipelock}
	}
	return []string{"--proxy", "allowlist"}
}

// TestSeal is the whole promise: an agent reaches what is allowed through the
// proxy, and nothing else by any way.
func TestSeal(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		other := r.start(t, "--name", "other", "--allow", "allowed.test")
		for _, runtime := range []string{"runc", "runsc"} {
			for _, engine := range engines(t) {
				t.Run(runtime+"/"+engine, func(t *testing.T) { testSeal(t, r, other, runtime, engine) })
			}
		}
		other.stop(t)
	})
}

func testSeal(t *testing.T, r *rig, other *live, runtime, engine string) {
	flags := append(engineFlags(engine), "--runtime", runtime, "--allow", "allowed.test", "--allow", "private.test", "--allow", "meta.test")
	for _, user := range []string{"", "root"} {
		t.Run("user "+user, func(t *testing.T) {
			agent := r.start(t, append(flags, "--user", user)...)
			checkDirect(t, r, agent, other)
			checkProxied(t, r, agent, engine)
			agent.stop(t)
		})
	}
}

// target is somewhere an agent must not get to.
type target struct {
	what, addr string
	open       bool // it answers the host itself, which is the control
}

// targets are every address around a bottle.
func targets(t *testing.T, agent, other *live) []target {
	t.Helper()
	var all []target
	for _, addr := range []string{
		world.HostAddr, world.HostAddr6, world.HostLAN, world.HostExtra,
		world.Gateway, world.Gateway6, world.Allowed, world.Denied, world.Internet6, world.Neighbour, world.Metadata,
	} {
		port := 80
		switch addr {
		case world.HostAddr, world.HostAddr6, world.HostLAN, world.HostExtra:
			port = world.HostTCPPort
		}
		all = append(all, target{"tcp", join(addr, port), true})
		if addr != world.Neighbour {
			all = append(all, target{"udp", join(addr, world.HostUDPPort), true})
		}
		all = append(all, target{"icmp", addr, false})
	}
	for _, addr := range hostEnds(t, agent) {
		all = append(all, target{"tcp", join(addr, world.HostTCPPort), true}, target{"udp", join(addr, world.HostUDPPort), true}, target{"icmp", addr, false})
	}
	for _, port := range []int{22, 53, 7777, 9091} { // the proxy's own, beside its one
		all = append(all, target{"tcp", join("10.66.0.1", port), false})
	}
	for _, b := range []*live{agent, other} {
		for _, addr := range addresses(t, b.inspect(t).PIDs[1]) {
			for _, port := range []int{8888, 9091, 22} {
				if addr != "10.66.0.1" || port != 8888 {
					all = append(all, target{"tcp", join(addr, port), false})
				}
			}
			all = append(all, target{"icmp", addr, false})
		}
	}
	return append(all, target{"tcp", join(world.Resolver, 53), true}, target{"dns", world.Resolver + " allowed.test", true})
}

func join(addr string, port int) string {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port)).String()
}

// addresses are those of a process's network namespace but loopback's.
func addresses(t *testing.T, pid int) (all []string) {
	t.Helper()
	for line := range strings.Lines(hostTool(t, "nsenter", "-t", fmt.Sprint(pid), "-n", "ip", "-o", "-4", "address")) {
		fields := strings.Fields(line)
		if addr, _, _ := strings.Cut(fields[3], "/"); fields[1] != "lo" {
			all = append(all, addr)
		}
	}
	if len(all) == 0 {
		t.Fatalf("process %d has no address", pid)
	}
	return all
}

// hostEnds are the host's own addresses on the links of proxies.
func hostEnds(t *testing.T, agent *live) (all []string) {
	t.Helper()
	routes := hostTool(t, "nsenter", "-t", fmt.Sprint(agent.inspect(t).PIDs[1]), "-n", "ip", "-4", "route", "show", "default")
	if fields := strings.Fields(routes); len(fields) > 2 {
		all = append(all, fields[2])
	}
	if len(all) == 0 {
		t.Fatalf("the proxy has no default route: %q", routes)
	}
	return all
}

// checkDirect tries every target from the agent's container without its
// environment. The same program on the host is the control.
func checkDirect(t *testing.T, r *rig, agent, other *live) {
	t.Helper()
	all := targets(t, agent, other)
	r.Reset()
	for _, a := range attempts(t, probeOnHost(t, all)) {
		if i := slices.IndexFunc(all, func(x target) bool { return x.open && (x.addr == a.Target || x.what == "dns" && a.What == "dns") }); i >= 0 && !a.OK {
			t.Errorf("control: from the host: %v", a)
		}
	}
	arrived := r.Arrivals("")
	if len(arrived) < 15 {
		t.Errorf("control: %d arrivals were counted", len(arrived))
	}
	r.Reset()
	o := agent.exec(t, "env", "-i", "/bin/sh", "-c", script("/bin/probe", all))
	if o.code != 0 {
		t.Fatalf("probe: %v", o)
	}
	tried := attempts(t, o.stdout)
	if len(tried) < len(all) {
		t.Errorf("%d attempts for %d targets", len(tried), len(all))
	}
	for _, a := range tried {
		if a.OK {
			t.Errorf("the agent reached %v", a)
		}
	}
	if err := r.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Arrivals("") {
		t.Errorf("arrived: %+v", a)
	}
	for _, place := range []string{world.AtInternet, world.AtLAN} {
		for _, p := range r.Packets(place) {
			if p.Protocol != "arp" && p.Port != 9 {
				t.Errorf("packets at %s: %v", place, p)
			}
		}
	}
}

// script tries all targets at once: most of it is waiting.
func script(probe string, all []target) string {
	var lines []string
	for _, x := range all {
		lines = append(lines, probe+" "+x.what+" "+x.addr)
	}
	return strings.Join(lines, " &\n") + " &\nwait"
}

func probeOnHost(t *testing.T, all []target) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", script(shared.probe, all)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// checkProxied asks by the proxy, with the agent's own environment.
func checkProxied(t *testing.T, r *rig, agent *live, engine string) {
	t.Helper()
	for _, tc := range []struct {
		url    string
		server string // empty: refused
	}{
		{"http://allowed.test/", "internet/http"},
		{"https://allowed.test/", "internet/https"},
		{"http://denied.test/", ""},
		{"https://denied.test/", ""},
		{"http://" + world.Denied + "/", ""},
		{"https://evil.test/", ""}, // the same address as an allowed one
		{"http://allowed.test:8443/", ""},
		{"http://private.test/", ""}, // allowed names of forbidden addresses
		{"http://meta.test/", ""},
		{"http://" + world.Metadata + "/", ""},
		{"http://" + world.HostAddr + ":7777/", ""},
		{"http://127.0.0.1:9091/metrics", ""},
	} {
		r.Reset()
		o := agent.exec(t, "env", "NO_PROXY=", "no_proxy=", "probe", "http", "-ca", "/etc/ca.pem", "-proxy", "http://pipelock:8888", tc.url)
		got := attempts(t, o.stdout)
		if len(got) != 1 || got[0].OK != (tc.server != "") {
			t.Errorf("%s by %s: %v", tc.url, engine, o)
			continue
		}
		checkArrived(t, r, tc.url, tc.server)
	}
}

func checkArrived(t *testing.T, r *rig, url, server string) {
	t.Helper()
	for _, a := range r.Arrivals("") {
		switch {
		case a.Server == "internet/dns" && (server != "" || !strings.Contains(url, "denied") && !strings.Contains(url, "evil")):
		case a.Server == server:
		default:
			t.Errorf("%s: arrived: %s for %v", url, a.Server, a.Names)
		}
	}
	if server != "" && len(r.Arrivals(server)) != 1 {
		t.Errorf("%s: %d arrivals at %s", url, len(r.Arrivals(server)), server)
	}
}

// TestFronting asks an allowed tunnel for a name that is not: both have one
// address.
func TestFronting(t *testing.T) {
	r := newRig(t, 0)
	for _, engine := range engines(t) {
		agent := r.start(t, append(engineFlags(engine), "--allow", "allowed.test")...)
		r.Reset()
		o := agent.exec(t, "probe", "tunnel", "-ca", "/etc/ca.pem", "10.66.0.1:8888", "allowed.test:443", "allowed.test")
		if got := attempts(t, o.stdout); len(got) != 1 || !got[0].OK {
			t.Errorf("control, %s: %v", engine, o)
		}
		r.Reset()
		o = agent.exec(t, "probe", "tunnel", "-ca", "/etc/ca.pem", "10.66.0.1:8888", "allowed.test:443", "evil.test")
		if got := attempts(t, o.stdout); len(got) != 1 || got[0].OK {
			t.Errorf("%s let another name through a tunnel: %v", engine, o)
		}
		for _, a := range r.Arrivals("internet/https") {
			if slices.Contains(a.Names, "evil.test") {
				t.Errorf("%s: arrived: %v", engine, a.Names)
			}
		}
		agent.stop(t)
	}
}

// TestWildcard: every name below a domain, and not the domain itself.
func TestWildcard(t *testing.T) {
	r := newRig(t, 1)
	r.SetName("www.allowed.test", netip.MustParseAddr(world.Allowed))
	defer r.SetName("www.allowed.test")
	for _, engine := range engines(t) {
		agent := r.start(t, append(engineFlags(engine), "--allow", "*.allowed.test")...)
		for url, want := range map[string]bool{
			"http://www.allowed.test/": true, "https://www.allowed.test/": true, "http://allowed.test/": false, "https://allowed.test/": false,
		} {
			r.Reset()
			got := attempts(t, agent.exec(t, "probe", "http", "-ca", "/etc/ca.pem", url).stdout)
			if len(got) != 1 || got[0].OK != want || (len(r.Arrivals("internet")) > 0) != want {
				t.Errorf("%s by %s: %v, %d arrivals", url, engine, got, len(r.Arrivals("internet")))
			}
		}
		agent.stop(t)
	}
}

// TestFlushed takes every rule of the host away: the seal does not rest on
// them, and the way out comes back.
func TestFlushed(t *testing.T) {
	needRoot(t)
	flush(t) // which leaves tables behind that are made by their first use
	onEach(t, func(t *testing.T, r *rig) {
		other := r.start(t, "--name", "other")
		agent := r.start(t, "--allow", "allowed.test")
		flush(t)
		checkDirect(t, r, agent, other)
		eventually(t, "the way out is restored", func() bool {
			got := attempts(t, agent.exec(t, "probe", "http", "http://allowed.test/").stdout)
			return len(got) == 1 && got[0].OK
		})
		agent.stop(t)
		other.stop(t)
	})
}

func flush(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"iptables-legacy", "iptables-nft"} {
		hostTool(t, tool, "-F")
		hostTool(t, tool, "-t", "nat", "-F")
	}
	hostTool(t, "nft", "flush", "ruleset")
}

// TestFirstInstruction starts many agents whose first act is a connection.
func TestFirstInstruction(t *testing.T) {
	r := newRig(t, 1)
	direct := join(world.Allowed, 22)
	r.Reset()
	if out := probeOnHost(t, []target{{"firstconnect", direct, true}}); !attempts(t, out)[0].OK || len(r.Arrivals("internet/tcp")) != 1 {
		t.Fatalf("control: %s", out)
	}
	r.Reset()
	for range 50 {
		o := r.run(t, append(bottle("--allow", "allowed.test"), "--", "probe", "firstconnect", direct)...)
		if got := attempts(t, o.stdout); o.code != 0 || len(got) != 1 || got[0].OK {
			t.Fatalf("%v", o)
		}
	}
	if arrived := r.Arrivals(""); len(arrived) > 0 {
		t.Errorf("arrived: %+v", arrived)
	}
}

// TestLinks counts what one bottle adds to the host.
func TestLinks(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		l := r.start(t)
		now, err := r.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if links := len(now["links"]) - len(r.before["links"]); links != 1 {
			t.Errorf("one bottle adds %d links to the host", links)
		}
		if !slices.Equal(now["iptables"], r.before["iptables"]) {
			t.Errorf("one bottle adds to iptables: %v", now["iptables"])
		}
		l.stop(t)
	})
}

// TestOperatorNetwork uses a CNI network of the operator's, whose plugin
// masquerades and has to be told of the end while the namespace lives.
func TestOperatorNetwork(t *testing.T) {
	needRoot(t)
	for _, change := range []string{"-A", "-D"} { // what iptables leaves after its first use
		hostTool(t, "iptables-nft", "-t", "nat", change, "POSTROUTING", "-j", "ACCEPT")
	}
	onEach(t, func(t *testing.T, r *rig) {
		dir := t.TempDir()
		conflist := `{"cniVersion":"1.0.0","name":"corp","plugins":[{"type":"ptp","ipMasq":true,"ipam":{"type":"host-local",
			"dataDir":"/run/corp","ranges":[[{"subnet":"10.55.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`
		if err := os.WriteFile(filepath.Join(dir, "10-corp.conflist"), []byte(conflist), 0o600); err != nil {
			t.Fatal(err)
		}
		setForwarding(t, "1") // the operator's business then
		defer setForwarding(t, "0")
		network := []string{"--egress-network", "corp", "--cni-conf-dir", dir, "--allow", "allowed.test"}
		out := r.mustRun(t, append(bottle(network...), "--gate", "--", "probe", "http", "http://allowed.test/", "http://denied.test/")...)
		if got := attempts(t, out); len(got) != 2 || !got[0].OK || got[1].OK {
			t.Errorf("%v", got)
		}
		if o := r.run(t, append(bottle("--egress-network", "none", "--cni-conf-dir", dir), "--", "true")...); o.code != 2 || !strings.Contains(o.stderr, `egress network "none"`) {
			t.Errorf("a network that is not there: %v", o)
		}
	})
}

func setForwarding(t *testing.T, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// TestResolversChange: a long run outlives the host's resolvers.
func TestResolversChange(t *testing.T) {
	r := newRig(t, 0)
	const conf = "/etc/resolv.conf"
	before, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(conf, before, 0o644); err != nil {
			t.Error(err)
		}
	}()
	agent := r.start(t, "--allow", "allowed.test")
	asked := func() string {
		r.Reset()
		agent.exec(t, "probe", "http", "-ca", "/etc/ca.pem", "https://allowed.test/") // each tunnel asks anew
		for _, a := range r.Arrivals("internet/dns") {
			return a.Local.Addr().String()
		}
		return ""
	}
	if got := asked(); got != world.Resolver {
		t.Fatalf("control: %q was asked", got)
	}
	if err := os.WriteFile(conf, []byte("nameserver "+world.Denied+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new resolver is asked", func() bool { return asked() == world.Denied })
	agent.stop(t)
}
