package policy

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestParsePattern(t *testing.T) {
	for text, want := range map[string]string{
		"example.com":            "example.com",
		"Example.COM.":           "example.com",
		"*.example.com":          "*.example.com",
		"example.com:8443":       "example.com:8443",
		"tcp:git.example.com:22": "tcp:git.example.com:22",
		"bücher.example":         "xn--bcher-kva.example",
		"10.1.2.3":               "10.1.2.3",
		"a_b.example.com":        "a_b.example.com",
		"localhost":              "localhost",
	} {
		p, err := ParsePattern(text)
		if err != nil || p.String() != want {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{
		"", ".", "*", "*.", "*.com", "a.*.com", "**.a.com", "*a.com", "https://a.com", "a.com/x", "u@a.com", "a b.com", "a.com\n",
		"a.com:0", "a.com:65536", "a.com:x", "tcp:a.com", "a..com", "-", "[::1]", "::1", "*.10.0.0.1", "127.1", "0x7f.1", "2130706433",
		"010.0.0.1.2", "1.2.3.256", strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 130) + "com", "a\x00.com", "\u202ea.com", "a.com?",
	} {
		if p, err := ParsePattern(text); err == nil && text != "-" {
			t.Errorf("%q was taken as %v", text, p)
		} else if err != nil && !strings.Contains(err.Error(), "bad host pattern") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, host string
		port          uint16
		want          bool
	}{
		{"example.com", "example.com", 443, true},
		{"example.com", "example.com", 80, true},
		{"example.com", "example.com", 22, false},
		{"example.com", "www.example.com", 443, false},
		{"example.com", "notexample.com", 443, false},
		{"example.com", "example.com.evil.org", 443, false},
		{"*.example.com", "www.example.com", 443, true},
		{"*.example.com", "a.b.example.com", 443, true},
		{"*.example.com", "example.com", 443, false},
		{"*.example.com", "evilexample.com", 443, false},
		{"example.com:8443", "example.com", 8443, true},
		{"example.com:8443", "example.com", 443, false},
		{"tcp:example.com:22", "example.com", 22, true},
	} {
		p, err := ParsePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Match(tt.host, tt.port); got != tt.want {
			t.Errorf("%s matches %s:%d: %v", tt.pattern, tt.host, tt.port, got)
		}
	}
	if (Pattern{}).Match("", 443) {
		t.Error("the zero pattern matches")
	}
}

func TestPermit(t *testing.T) {
	p := Policy{Private: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("169.254.0.0/16")}}
	for addr, want := range map[string]bool{
		"93.184.216.34": true, "8.8.8.8": true, "10.1.2.3": true,
		"10.2.0.1": false, "127.0.0.1": false, "169.254.169.254": false, "192.168.1.1": false, "172.16.0.1": false,
		"100.64.1.1": false, "0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false, "198.18.0.1": false,
		"192.0.2.1": false, "::1": false, "fe80::1": false, "fd00::1": false, "2001:db8::1": false,
		"::ffff:93.184.216.34": false, "::ffff:10.2.0.1": false, "64:ff9b::a02:1": false, "2002:a02:1::": false,
	} {
		if err := p.Permit(netip.MustParseAddr(addr)); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
	exact := Policy{Private: []netip.Prefix{netip.MustParsePrefix("169.254.169.254/32")}}
	if err := exact.Permit(netip.MustParseAddr("169.254.169.254")); err != nil {
		t.Errorf("declared by itself: %v", err)
	}
}

func TestPolicyJSON(t *testing.T) {
	const text = `{"version":1,"allow":["*.b.test:8443","a.test","tcp:c.test:22"],"private":["10.0.0.1/32"]}`
	var p Policy
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(p)
	if err != nil || string(back) != text {
		t.Errorf("%s, %v", back, err)
	}
	if !p.Plain("c.test", 22) || p.Plain("a.test", 443) {
		t.Error("tcp: is lost")
	}
	for _, bad := range []string{`{"version":2}`, `{"version":1,"alow":[]}`, `{"version":1,"allow":["*"]}`, `{"version":1}{}`, `[]`, ``} {
		if err := json.Unmarshal([]byte(bad), &p); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{"a.test": "a.test", "\x1b[2J": `"\x1b[2J"`, "a\u202eb": `"a\u202eb"`} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	if got := Printable(strings.Repeat("x", 1000)); len(got) > 260 {
		t.Errorf("%d characters", len(got))
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("*.example.com", "www.example.com", uint16(443))
	f.Add("tcp:a.b:22", "a.b", uint16(22))
	f.Add("BÜcher.example.", "xn--bcher-kva.example", uint16(80))
	f.Fuzz(func(t *testing.T, pattern, host string, port uint16) {
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		again, err := ParsePattern(p.String())
		if err != nil || again != p {
			t.Fatalf("%q became %q, which is read as %q: %v", pattern, p, again, err)
		}
		normal, err := NormalizeHost(host)
		if err != nil {
			return
		}
		if twice, err := NormalizeHost(normal); err != nil || twice != normal {
			t.Fatalf("%q is normalised to %q and that to %q: %v", host, normal, twice, err)
		}
		base := strings.TrimPrefix(p.Host(), "*.")
		if p.Match(normal, port) && normal != base && !strings.HasSuffix(normal, "."+base) {
			t.Fatalf("%q matches %q", p, normal)
		}
	})
}
