package policy

import (
	"strings"
	"testing"
)

func parsed(t *testing.T, s string) Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParsePattern(t *testing.T) {
	for text, want := range map[string]string{
		"example.com":                    "example.com",
		"Example.COM.":                   "example.com",
		"*.example.com":                  "*.example.com",
		"*.EXAMPLE.com.:8443":            "*.example.com:8443",
		"example.com:8443":               "example.com:8443",
		"example.com:65535":              "example.com:65535",
		"tcp:git.example.com:22":         "tcp:git.example.com:22",
		"tcp:*.example.com:22":           "tcp:*.example.com:22",
		"bücher.example":                 "xn--bcher-kva.example",
		"*.bücher.example":               "*.xn--bcher-kva.example",
		"10.1.2.3":                       "10.1.2.3",
		"10.1.2.3:8443":                  "10.1.2.3:8443",
		"a_b.example.com":                "a_b.example.com",
		"_srv.example.com":               "_srv.example.com",
		"localhost":                      "localhost",
		"1.example.com":                  "1.example.com",
		"0x7f.example.com":               "0x7f.example.com",
		strings.Repeat("a", 63) + ".com": strings.Repeat("a", 63) + ".com",
	} {
		if p, err := ParsePattern(text); err != nil || p.String() != want {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"": "1 to 253", ".": "1 to 253", "*.": "1 to 253",
		"*": "first labels", "a.*.com": "first labels", "**.a.com": "first labels", "*a.com": "first labels", "*.*.com": "first labels",
		"*.com": "top-level", "*.10.0.0.1": "no names below",
		"https://x/": "give the host only, as in x", "https://u:p@a.com:8443/p?q#f": "as in a.com",
		"a.com/x": "as in a.com", "u@a.com": "as in a.com", "a.com?": "as in a.com", "//": "as in example.com", `a.com\b`: "as in a.com",
		"a b.com": "blank", "a.com\n": "blank", " a.com": "blank", "a.com\t:80": "blank", "a\x00.com": "control", "a\u0085.com": "control",
		"\u202ea.com": "not a host", "a\xff.com": "not text", "a\uff0fb.com": "not a host",
		"a.com:0": "1 to 65535", "a.com:65536": "1 to 65535", "a.com:x": "1 to 65535", "a.com:": "1 to 65535", "a.com:+80": "1 to 65535",
		"tcp:a.com": "needs a port", "tcp:": "needs a port",
		"a..com": "not a host", ".a.com": "not a host", "a.com..": "not a host", "-": "not a host", "-a.com": "not a host", "a-.com": "not a host",
		"[::1]": "no IPv6", "::1": "no IPv6", "[::1]:443": "no IPv6", "tcp:[fe80::1]:22": "no IPv6",
		"127.1": "ambiguous", "0x7f.1": "ambiguous", "2130706433": "ambiguous", "0x7f000001": "ambiguous", "a.0x7f": "ambiguous", "0x": "ambiguous",
		"010.0.0.1": "ambiguous", "010.0.0.1.2": "ambiguous", "1.2.3.256": "ambiguous", "a.com.1": "ambiguous", "１２７.1": "ambiguous",
		strings.Repeat("a", 64) + ".com": "not a host", strings.Repeat("a.", 130) + "com": "1 to 253", strings.Repeat("x", 2000): "1 to 253",
	} {
		p, err := ParsePattern(text)
		if err == nil {
			t.Errorf("%q was taken as %v", text, p)
			continue
		}
		if !strings.HasPrefix(err.Error(), "bad host pattern \"") || !strings.Contains(err.Error(), says) || len(err.Error()) > 300 {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
		if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x202e }) {
			t.Errorf("%q: unsafe message %q", text, err)
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
		{"*.example.com", ".example.com.evil.org", 443, false},
		{"*.example.com:8443", "www.example.com", 443, false},
		{"*.example.com:8443", "www.example.com", 8443, true},
		{"example.com:8443", "example.com", 8443, true},
		{"example.com:8443", "example.com", 443, false},
		{"tcp:example.com:22", "example.com", 22, true},
		{"tcp:example.com:22", "example.com", 443, false},
		{"10.1.2.3", "10.1.2.3", 443, true},
		{"10.1.2.3", "10.1.2.30", 443, false},
	} {
		if got := parsed(t, tt.pattern).Match(tt.host, tt.port); got != tt.want {
			t.Errorf("%s matches %s:%d: %v", tt.pattern, tt.host, tt.port, got)
		}
	}
	if (Pattern{}).Match("", 443) {
		t.Error("the zero pattern matches")
	}
}

func TestNormalizeHost(t *testing.T) {
	for text, want := range map[string]string{
		"A.Test.": "a.test", "BÜCHER.example": "xn--bcher-kva.example", "xn--bcher-kva.example": "xn--bcher-kva.example",
		"ａ．test": "a.test", "8.8.8.8": "8.8.8.8", "a_b": "a_b",
	} {
		if got, err := NormalizeHost(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"a.test:80", "a/b", "u@a", "[::1]", "::1", "*.a.test", "a%2etest", "a,b", "a;b", "127.1", "a..", "xn--\u200d"} {
		if got, err := NormalizeHost(text); err == nil || got != "" {
			t.Errorf("%q was taken as %q", text, got)
		}
	}
}
