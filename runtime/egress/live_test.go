package egress

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
)

func patterns(t *testing.T, text string) (all []policy.Pattern) {
	t.Helper()
	for s := range strings.FieldsSeq(text) {
		p, err := policy.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func texts(all []policy.Pattern) string {
	var out []string
	for _, p := range unique(all) {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}

func TestAllowAndDeny(t *testing.T) {
	for _, tt := range []struct {
		engine, now, do, hosts string
		want, says             string
	}{
		{"", "a.test", Allow, "b.test *.c.test:8443 a.test", "*.c.test:8443 a.test b.test", ""},
		{"", "", Allow, "tcp:a.test:22", "tcp:a.test:22", ""},
		{"", "a.test", Allow, "*", "", "bad host pattern"},
		{"", "a.test", Allow, "https://b.test/", "", "give the host only"},
		{"", "a.test b.test", Deny, "a.test", "b.test", ""},
		{"", "a.test a.test:8443 tcp:a.test:22 b.test", Deny, "A.test", "b.test", ""},
		{"", "a.test a.test:8443 tcp:a.test:22", Deny, "a.test:22", "a.test a.test:8443", ""},
		{"", "a.test a.test:8443", Deny, "a.test:443", "", "still be reached, by a.test: deny that"},
		{"", "a.test", Deny, "b.test", "", "not among"},
		{"", "a.test", Deny, "a.test b.test", "", "not among"},
		{"", "*.a.test x.a.test", Deny, "x.a.test", "", "by *.a.test"},
		{"", "*.a.test", Deny, "x.a.test", "", "by *.a.test"},
		{"", "*.a.test:8443 x.a.test", Deny, "x.a.test", "", "by *.a.test:8443"},
		{"", "*.a.test:8443 x.a.test", Deny, "x.a.test:80", "", "by x.a.test"},
		{"", "*.a.test x.a.test", Deny, "*.a.test", "", "by x.a.test"},
		{"", "*.a.test x.a.test", Deny, "*.a.test x.a.test", "", ""},
		{"", "a.test *.a.test", Deny, "*.a.test", "a.test", ""},
		{proxy.Pipelock, "a.test a.test:8443", Deny, "a.test:8443", "a.test", ""},
		{proxy.Pipelock, "a.test a.test:8443 b.test:8443", Deny, "a.test:8443", "", "pipelock chooses by the host"},
		{proxy.Allowlist, "a.test a.test:8443 b.test:8443", Deny, "a.test:8443", "a.test b.test:8443", ""},
	} {
		l := Live{Engine: tt.engine, Now: policy.Policy{Allow: patterns(t, tt.now)}}
		next, err := l.After(Request{Do: tt.do, Hosts: strings.Fields(tt.hosts)})
		switch {
		case tt.says != "":
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s %s of %s: %v, want %q", tt.do, tt.hosts, tt.now, err, tt.says)
			}
		case err != nil || texts(next.Allow) != tt.want:
			t.Errorf("%s %s of %s: %s, %v", tt.do, tt.hosts, tt.now, texts(next.Allow), err)
		case l.Narrows(next) != (tt.do == Deny):
			t.Errorf("%s %s of %s narrows: %v", tt.do, tt.hosts, tt.now, l.Narrows(next))
		}
		if texts(l.Now.Allow) != texts(patterns(t, tt.now)) {
			t.Errorf("%s %s changed the policy in force: %s", tt.do, tt.hosts, texts(l.Now.Allow))
		}
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	for _, r := range []Request{{}, {Do: "allow"}, {Do: "deny"}, {Do: "pause", Hosts: []string{"a.test"}}, {Do: "show"}, {Do: "x"}, {Do: "allow", Hosts: make([]string, mostHosts+1)}} {
		if _, err := (Live{}).After(r); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", r.Do, err)
		}
	}
}

func TestPause(t *testing.T) {
	l := Live{Now: policy.Policy{Allow: patterns(t, "a.test")}}
	paused, err := l.After(Request{Do: Pause})
	if err != nil || !paused.Paused || texts(paused.Allow) != "a.test" || !l.Narrows(paused) {
		t.Fatalf("%+v, %v", paused, err)
	}
	if _, err := paused.Decide("a.test", 443); err == nil || !strings.Contains(err.Error(), "paused") {
		t.Errorf("%v", err)
	}
	l.Now = paused
	resumed, err := l.After(Request{Do: Resume})
	if err != nil || resumed.Paused || l.Narrows(resumed) {
		t.Errorf("%+v, %v", resumed, err)
	}
}

// What was intercepted at the start is so again; a bottle that opens all TLS gets
// no host whose it could not.
func TestInterceptedStaysSo(t *testing.T) {
	start := policy.Policy{Allow: patterns(t, "a.test b.test"), Intercept: patterns(t, "a.test")}
	l := Live{Engine: proxy.Pipelock, Start: start, Now: start}
	next, err := l.After(Request{Do: Deny, Hosts: []string{"a.test"}})
	if err != nil || len(next.Intercept) != 0 {
		t.Fatalf("%+v, %v", next, err)
	}
	l.Now = next
	if next, err = l.After(Request{Do: Allow, Hosts: []string{"a.test", "c.test"}}); err != nil || texts(next.Intercept) != "a.test" {
		t.Errorf("%+v, %v", next, err)
	}
	if _, err := l.After(Request{Do: Allow, Hosts: []string{"a.test", "a.test:8443"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("the same host read and not read: %v", err)
	}
	l.InterceptAll = true
	if _, err := l.After(Request{Do: Allow, Hosts: []string{"c.test"}}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a host that should be read and cannot: %v", err)
	}
	if _, err := l.After(Request{Do: Allow, Hosts: []string{"a.test", "b.test", "tcp:c.test:22"}}); err != nil {
		t.Error(err)
	}
}

func TestView(t *testing.T) {
	start := policy.Policy{Allow: patterns(t, "a.test b.test b.test tcp:c.test:22"), Intercept: patterns(t, "a.test")}
	l := Live{Engine: proxy.Pipelock, Start: start, Now: policy.Policy{Allow: patterns(t, "b.test d.test tcp:c.test:22")}}
	want := []Host{
		{"b.test", "passthrough", "start", "allowed"}, {"d.test", "passthrough", "live", "allowed"},
		{"tcp:c.test:22", "", "start", "allowed"}, {"a.test", "intercept", "start", "denied"},
	}
	if got := l.View(); !slices.Equal(got.Hosts, want) || got.Paused {
		t.Errorf("%+v", got)
	}
	l.Now.Paused = true
	if got := l.View(); got.Hosts[0].State != "paused" || got.Hosts[3].State != "denied" || !got.Paused {
		t.Errorf("%+v", got)
	}
}
