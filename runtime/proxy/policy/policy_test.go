package policy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestRefused(t *testing.T) {
	for addr, want := range map[string]string{
		"93.184.216.34": "", "8.8.8.8": "", "1.1.1.1": "", "100.63.255.255": "", "100.128.0.0": "", "172.15.0.1": "", "172.32.0.1": "",
		"198.17.0.1": "", "198.20.0.1": "", "169.253.0.1": "", "223.255.255.255": "", "11.0.0.1": "", "192.0.1.1": "",
		"0.0.0.0": "unspecified", "0.1.2.3": "this network", "10.2.0.1": "private", "172.16.0.1": "private", "172.31.255.255": "private",
		"192.168.1.1": "private", "127.0.0.1": "loopback", "127.255.0.1": "loopback", "169.254.1.1": "link-local",
		"169.254.169.254": "metadata", "169.254.170.2": "metadata", "100.100.100.200": "metadata", "168.63.129.16": "metadata",
		"100.64.1.1": "carrier", "192.0.0.8": "protocols", "192.0.2.1": "documentation", "198.51.100.1": "documentation",
		"203.0.113.9": "documentation", "198.18.0.1": "benchmarks", "198.19.255.255": "benchmarks", "192.88.99.1": "6to4",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "240.0.0.1": "reserved", "255.255.255.255": "broadcast",
		"::": "unspecified", "::1": "loopback", "fe80::1": "link-local", "fe80::1%eth0": "link-local", "fd00::1": "private", "ff02::1": "multicast",
		"::ffff:93.184.216.34": "inside", "::ffff:10.2.0.1": "inside", "::8.8.8.8": "inside", "64:ff9b::a02:1": "NAT64", "64:ff9b:1::1": "NAT64",
		"2002:a02:1::": "6to4", "2001::1": "Teredo", "2001:db8::1": "documentation", "2606:4700::1111": "IPv6",
	} {
		got := Refused(netip.MustParseAddr(addr))
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	if Refused(netip.Addr{}) == "" {
		t.Error("no address is taken")
	}
}

func TestPermit(t *testing.T) {
	p := Policy{Private: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("100.64.0.0/10")}}
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "10.1.2.3": true, "100.64.0.1": true, "10.2.0.1": false, "::ffff:10.1.2.3": false,
		"169.254.169.254": false, "169.254.7.7": false, "100.100.100.200": false,
	} {
		if err := p.Permit(netip.MustParseAddr(addr)); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"169.254.169.254", "100.100.100.200", "168.63.129.16"} {
		a := netip.MustParseAddr(addr)
		if err := (Policy{}).Permit(a); err == nil {
			t.Errorf("%s: permitted undeclared", a)
		}
		if err := (Policy{Private: []netip.Prefix{netip.PrefixFrom(a, 32)}}).Permit(a); err != nil {
			t.Errorf("declared by itself: %v", err)
		}
	}
}

func TestDecide(t *testing.T) {
	p := Policy{Allow: []Pattern{parsed(t, "a.test"), parsed(t, "*.b.test:8443"), parsed(t, "tcp:c.test:22")}}
	for _, tt := range []struct {
		host      string
		port      uint16
		rule, err string
	}{
		{"a.test", 443, "a.test", ""}, {"A.TEST.", 80, "a.test", ""}, {"x.b.test", 8443, "*.b.test:8443", ""}, {"c.test", 22, "tcp:c.test:22", ""},
		{"a.test", 22, "", "port 22 of a.test"}, {"b.test", 8443, "", "host b.test"}, {"d.test", 443, "", "host d.test"},
		{"127.1", 443, "", "ambiguous"}, {"", 443, "", "1 to 253"}, {"a.test\x00", 443, "", "control"},
	} {
		rule, err := p.Decide(tt.host, tt.port)
		if rule != tt.rule || (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s:%d: %q, %v", tt.host, tt.port, rule, err)
		}
	}
	if _, err := (Policy{}).Decide("a.test", 443); err == nil {
		t.Error("the zero policy allows")
	}
	if !p.Plain("c.test", 22) || p.Plain("c.test", 443) || p.Plain("a.test", 443) {
		t.Error("tcp: is lost, or everywhere")
	}
	if got := p.Ports(); !slices.Equal(got, []uint16{22, 80, 443, 8443}) {
		t.Errorf("ports %v", got)
	}
	if got := (Policy{}).Ports(); !slices.Equal(got, []uint16{80, 443}) {
		t.Errorf("ports of nothing %v", got)
	}
}

func TestPolicyJSON(t *testing.T) {
	const text = `{"version":1,"allow":["*.b.test:8443","a.test","tcp:c.test:22"],"private":["10.0.0.1/32","10.1.0.0/16"]}`
	const mixed = `{"version":1,"allow":["tcp:C.test:22","a.test","a.test.","*.b.test:8443"],"private":["10.1.0.0/16","10.0.0.1/32"]}`
	for _, in := range []string{text, mixed} {
		var p Policy
		if err := json.Unmarshal([]byte(in), &p); err != nil {
			t.Fatal(err)
		}
		if back, err := json.Marshal(p); err != nil || string(back) != text {
			t.Errorf("%s, %v", back, err)
		}
	}
	if empty, err := json.Marshal(Policy{}); err != nil || string(empty) != `{"version":1,"allow":[],"private":[]}` {
		t.Errorf("empty: %s, %v", empty, err)
	}
	for _, bad := range []string{
		`{}`, `{"version":2}`, `{"version":1,"alow":[]}`, `{"version":1,"allow":["*"]}`, `{"version":1,"allow":[1]}`, `{"version":1}{}`,
		`{"version":1,"private":["10.0.0.1"]}`, `{"version":1,"private":["x/8"]}`, `[]`, `null`, ``,
	} {
		var p Policy
		if err := json.Unmarshal([]byte(bad), &p); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestShown(t *testing.T) {
	for text, want := range map[string]string{"a.test": "a.test", "A.test": `"A.test"`, "\x1b[2J": `"\x1b[2J"`, "a\u202eb": `"a\u202eb"`, "": `""`} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	for text, want := range map[string]string{"GET": "GET", `host "x" is`: `host "x" is`, "a\x1b[2J\n": `a\x1b[2J\n`, "a\u202eb": `a\u202eb`} {
		if got := Escape(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	for _, long := range []string{strings.Repeat("x", 1000), strings.Repeat("\x00", 1000)} {
		if p, e := Printable(long), Escape(long); len(p) > 253 || len(e) > 253 {
			t.Errorf("%d and %d bytes", len(p), len(e))
		}
	}
}
