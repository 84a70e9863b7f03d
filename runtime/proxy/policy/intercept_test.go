package policy

import (
	"strings"
	"testing"
)

func patterns(t *testing.T, text string) (all []Pattern) {
	t.Helper()
	for s := range strings.FieldsSeq(text) {
		p, err := ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestCheckIntercept(t *testing.T) {
	for _, tt := range []struct {
		intercept, passthrough string
		clash                  string // empty: none
	}{
		{"", "a.test *.a.test tcp:a.test:22", ""},
		{"a.test", "", ""},
		{"a.test", "b.test *.a.test tcp:b.test:22", ""},
		{"a.test", "a.test:8443", "a.test:8443"},
		{"a.test", "tcp:a.test:22", "tcp:a.test:22"},
		{"x.a.test", "*.a.test", "*.a.test"},
		{"x.y.a.test", "*.a.test", "*.a.test"},
		{"*.y.a.test", "*.a.test", "*.a.test"},
		{"*.a.test", "*.a.test:8443", "*.a.test:8443"},
		{"*.a.test", "a.test", ""},
		{"*.a.test", "x.a.test", ""}, // an exception
		{"*.a.test", "*.x.a.test", ""},
		{"*.a.test", "x.a.test:8443", "x.a.test:8443"}, // would except 443 as well
		{"*.a.test", "tcp:x.a.test:22", "tcp:x.a.test:22"},
		{"*.a.test:8443", "tcp:x.a.test:8443", ""},
		{"*.a.test", "xa.test b.test", ""},
		{"tcp:a.test:22", "", "no TLS"},
	} {
		p := Policy{Intercept: patterns(t, tt.intercept)}
		p.Allow = append(patterns(t, tt.passthrough), p.Intercept...)
		err := p.CheckIntercept()
		if (err == nil) != (tt.clash == "") || err != nil && !strings.Contains(err.Error(), tt.clash) {
			t.Errorf("%q beside %q: %v", tt.intercept, tt.passthrough, err)
		}
		if got := p.Passthrough(); len(got) != len(strings.Fields(tt.passthrough)) {
			t.Errorf("%q beside %q: %v pass through", tt.intercept, tt.passthrough, got)
		}
	}
}

func TestApexes(t *testing.T) {
	for allow, want := range map[string]string{
		"": "", "a.test": "", "*.a.test": "a.test", "*.a.test a.test:8443": "", "*.a.test *.b.a.test:8443": "a.test", "*.b.test *.a.test *.a.test:8443": "a.test b.test",
	} {
		if got := strings.Join(Policy{Allow: patterns(t, allow)}.Apexes(), " "); got != want {
			t.Errorf("%q: %q, want %q", allow, got, want)
		}
	}
}
