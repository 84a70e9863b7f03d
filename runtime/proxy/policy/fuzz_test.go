package policy

import (
	"slices"
	"strings"
	"testing"
)

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"example.com", "*.Example.com.:8443", "tcp:a.b:22", "BÜcher.example", "10.0.0.1", "https://x/", "::1", "127.1", "ﬀ.test", "a\u3002b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePattern(text)
		if err != nil {
			if p != (Pattern{}) {
				t.Fatalf("%q: a pattern beside %v", text, err)
			}
			return
		}
		again, err := ParsePattern(p.String())
		if err != nil || again != p {
			t.Fatalf("%q became %q, which is read as %q: %v", text, p, again, err)
		}
		base, wild := strings.CutPrefix(p.Host(), "*.")
		for _, port := range p.Ports() {
			// Its own host, or what lies below it, and not the other.
			if port == 0 || p.Match(base, port) == wild || p.Match("x."+base, port) != wild || p.Match("x"+base, port) {
				t.Fatalf("%q matches what it should not, or not what it should, on %d", p, port)
			}
		}
		checkNormal(t, base)
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("*.example.com", "www.example.com", uint16(443))
	f.Add("tcp:a.b:22", "a.b", uint16(22))
	f.Add("BÜcher.example.", "xn--bcher-kva.example", uint16(80))
	f.Add("*.a.test:8443", "A.A.TEST.", uint16(8443))
	f.Fuzz(func(t *testing.T, pattern, host string, port uint16) {
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		normal, err := NormalizeHost(host)
		if err != nil {
			if rule, err := (Policy{Allow: []Pattern{p}}).Decide(host, port); err == nil {
				t.Fatalf("%q is no host and was allowed by %s", host, rule)
			}
			return
		}
		checkNormal(t, normal)
		want := oracle(p, normal) && slices.Contains(p.Ports(), port)
		if got := p.Match(normal, port); got != want {
			t.Fatalf("%q matches %q:%d: %v", p, normal, port, got)
		}
		if rule, err := (Policy{Allow: []Pattern{p}}).Decide(host, port); (err == nil) != want || (want && rule != p.String()) {
			t.Fatalf("%q decides on %q:%d by %q: %v", p, host, port, rule, err)
		}
	})
}

// oracle matches label by label, from the right.
func oracle(p Pattern, host string) bool {
	want, have := strings.Split(p.Host(), "."), strings.Split(host, ".")
	slices.Reverse(want)
	slices.Reverse(have)
	for i, label := range want {
		if label == "*" {
			return len(have) > i
		}
		if i >= len(have) || have[i] != label {
			return false
		}
	}
	return len(want) == len(have)
}

func checkNormal(t *testing.T, host string) {
	t.Helper()
	if strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" || len(host) > 253 || strings.Contains("."+host+".", "..") {
		t.Fatalf("%q is not normal", host)
	}
	if twice, err := NormalizeHost(host); err != nil || twice != host {
		t.Fatalf("%q is normalised again to %q: %v", host, twice, err)
	}
	if got := Printable(host); got != host {
		t.Fatalf("%q is shown as %s", host, got)
	}
}

func FuzzShown(f *testing.F) {
	f.Add("a\x1b[2J\u202eb")
	f.Add(strings.Repeat("\x00", 300))
	f.Fuzz(func(t *testing.T, text string) {
		for _, shown := range []string{Printable(text), Escape(text)} {
			if len(shown) > mostShown || strings.ContainsFunc(shown, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q is shown as %q", text, shown)
			}
		}
	})
}
