package egress

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
)

func refusal(host string, port uint16) proxy.Decision {
	return proxy.Decision{Host: host, Port: port, Verdict: policy.Deny, WantsRule: true}
}

func TestSuggest(t *testing.T) {
	var r Refused
	if !r.Empty() {
		t.Error("nothing is something")
	}
	secret := refusal("dlp.test", 443)
	secret.WantsRule = false
	later := refusal("later.test", 443)
	allowed := proxy.Decision{Host: "later.test", Port: 80, Verdict: policy.Allow}
	for _, d := range []proxy.Decision{
		refusal("b.test", 443), refusal("a.test", 80), refusal("a.test", 443), refusal("a.test", 8443), refusal("git.test", 22), refusal("1.e5", 443),
		refusal("10.1.2.3", 443), refusal("*.a.test", 443), refusal("localhost", 80), refusal("A.test", 443), refusal(`"\x1b[2J.test"`, 443),
		refusal("a test.test", 443), refusal("a.test\n    - evil.test", 443), refusal("", 0), refusal("127.1", 80),
		secret, later, allowed, {Host: "c.test", Port: 443, Verdict: policy.Allow}, {Host: "d.test", Verdict: proxy.Closed}, {Host: "e.test", Verdict: proxy.Warned},
	} {
		r.Add(d)
	}
	want := `egress:
  allow:
    - "1.e5" # refused: 1
    - a.test # refused: 2
    - a.test:8443 # refused: 1
    - b.test # refused: 1
    - tcp:git.test:22 # refused: 1
`
	if got := r.Manifest(); got != want {
		t.Errorf("%s", got)
	}
	var read struct{ Egress struct{ Allow []any } }
	if err := yaml.Unmarshal([]byte(want), &read); err != nil || len(read.Egress.Allow) != 5 {
		t.Fatalf("%+v, %v", read, err)
	}
	for _, a := range read.Egress.Allow {
		if text, ok := a.(string); !ok {
			t.Errorf("%v is no text", a)
		} else if _, err := policy.ParsePattern(text); err != nil {
			t.Error(err)
		}
	}
}

func TestSuggestIsBounded(t *testing.T) {
	var r Refused
	for i := range 2 * mostSuggested {
		r.Add(refusal(fmt.Sprintf("n%d.test", i), 443))
	}
	if got := r.Manifest(); strings.Count(got, "\n") != mostSuggested+3 || !strings.HasSuffix(got, "# and more\n") {
		t.Errorf("%s", got)
	}
}
