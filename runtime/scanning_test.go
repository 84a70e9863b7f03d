package runtime

import (
	"context"
	"slices"
	"strings"
	"testing"

	"carboy/runtime/manifest"
	"carboy/runtime/proxy"
)

func TestKnownSecrets(t *testing.T) {
	caller := map[string]string{
		"FORWARDED": "forwarded-value", "BY_FLAG": "flagged-value", "SHORT": "seven77", "LANG": "en_US.UTF-8", "LC_TIME": "en_US.UTF-8",
		"BASE_URL": "https://api.test/v1/", "HOOK": "https://hooks.test/services/T0000/B000/XXXXXXXX", "LOGIN": "https://user:pass@host.test/",
	}
	r := Request{
		Image: "busybox", Engine: proxy.Pipelock,
		Agent:   &manifest.Agent{Env: map[string]string{"LITERAL": "stands-in-a-file"}},
		Bottle:  &manifest.Bottle{Env: map[string]string{"FORWARDED": "${FORWARDED}", "TWICE": "${FORWARDED}"}},
		Env:     []string{"BY_FLAG", "SHORT", "LANG", "LC_TIME", "BASE_URL", "HOOK", "LOGIN", "OPEN=said-to-everybody", "OVER=open-in-the-end"},
		EnvFile: []string{"IN_FILE=from-a-file", "OVER=secret-at-first", "MODE=x"},
		Lookup:  environ(caller),
	}
	p, err := NewPlan(r)
	if err != nil {
		t.Fatal(err)
	}
	got := p.knownSecrets()
	slices.Sort(got)
	want := []string{"flagged-value", "forwarded-value", "forwarded-value", "from-a-file", caller["HOOK"], caller["LOGIN"]}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	r.Engine = proxy.Allowlist
	if p, err = NewPlan(r); err != nil || len(p.knownSecrets()) != 0 {
		t.Errorf("the allowlist engine is told %q, %v", p.knownSecrets(), err)
	}
}

func TestSecretsFetchedLater(t *testing.T) {
	p, err := NewPlan(Request{
		Image: "busybox", Engine: proxy.Pipelock, Agent: &manifest.Agent{}, Lookup: environ(nil),
		Bottle: &manifest.Bottle{
			Env:     map[string]string{"ASKED": "?token", "same": "literal-value"},
			Secrets: map[string]string{"auth.json": "credential:auth", "key": "credential:key", "same": "credential:same"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"ASKED": "asked-value", "same": "value-of-a-file",
		"auth.json": `{"tokens": {"access": "access-token-1", "kinds": ["long-enough", "short"]}, "url": "https://api.test/v1", "n": 12345678901}`,
		"key":       "-----BEGIN KEY-----\nabcdefgh\n",
	}
	err = p.Resolve(t.Context(), func(_ context.Context, s Secret) ([]byte, error) { return []byte(values[s.Name]), nil })
	if err != nil {
		t.Fatal(err)
	}
	got := p.knownSecrets()
	if want := []string{"asked-value", "12345678901", "access-token-1", "long-enough", values["key"], "value-of-a-file"}; !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// TestWhatIsSearched: something of each secret is looked for, or it is named.
func TestWhatIsSearched(t *testing.T) {
	for value, want := range map[string]string{
		"[83749283, 38472938, 1e5]":                                "83749283 38472938",
		`{"pin": 1234567890123456}`:                                "1234567890123456",
		`["k3y","s3cr","part3"]`:                                   `["k3y","s3cr","part3"]`,
		"[\n  \"k3y\",\n  \"s3cret7\"\n]":                          `  "s3cret7"`,
		`{"sk_live_9f8e7d6c5b4a": true}`:                           "sk_live_9f8e7d6c5b4a",
		`{"secretkey": true}`:                                      `{"secretkey": true}`,
		`{"access_token": "abcdefgh", "client-id": 12345678}`:      "abcdefgh 12345678",
		`{"auths": {"registry1.test:5000": {"auth": "YTpiYw=="}}}`: "YTpiYw==",
		"abc1 de\nfgh2 ij\nklm3 no":                                "",
		"abc1 de\nlong-enough\n":                                   "abc1 de\nlong-enough\n",
		"https://a9f8e7d6c5b4.ngrok.test/x":                        "",
		"short77":                                                  "", "########": "", "": "",
	} {
		p := &Plan{Proxy: ProxyPlan{Engine: proxy.Pipelock}, env: map[string]string{"TOKEN": value}, secret: map[string]bool{"TOKEN": true}}
		if got := strings.Join(p.knownSecrets(), " "); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
		if named := len(p.Unsearched()) == 1; named != (want == "" && value != "") {
			t.Errorf("%q: named %v", value, named)
		}
		p.Proxy.Engine = proxy.Allowlist
		if got := p.Unsearched(); got != nil {
			t.Errorf("%q: the allowlist engine misses %q", value, got)
		}
	}
}

func TestLoginOfAnInterceptedHost(t *testing.T) {
	r := Request{
		Image: "busybox", Engine: proxy.Pipelock, Provider: "claude", Presets: []string{"claude"}, Agent: &manifest.Agent{},
		Bottle: &manifest.Bottle{Source: "dev.yaml", Egress: manifest.Egress{TLS: "intercept"}},
		Lookup: environ(map[string]string{"ANTHROPIC_API_KEY": "key-of-somebody"}),
	}
	if _, err := NewPlan(r); err == nil || !strings.Contains(err.Error(), "dev.yaml: egress: api.anthropic.com is to be intercepted") {
		t.Errorf("%v", err)
	}
	r.DLP = "warn"
	p := mustPlan(t, r)
	if got := p.knownSecrets(); !slices.Equal(got, []string{"key-of-somebody"}) {
		t.Errorf("the login is not known: %q", got)
	}
	r.DLP, r.Bottle.Egress.TLS = "", ""
	mustPlan(t, r)
}

func TestOrdinaryURL(t *testing.T) {
	for value, want := range map[string]bool{
		"https://api.test": true, "http://api.test:8080/": true, "https://api.test/v1/chat": true, "api.test": false, "": false,
		"https://api.test/?key=x": false, "https://api.test/#x": false, "https://x@api.test/": false, "https://api.test/abcdefgh": false,
		"ftp://api.test/": false, "postgres://u:p@db.test/x": false, "https://%zz": false,
	} {
		if got := ordinaryURL(value); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestIntercepted(t *testing.T) {
	bottle := &manifest.Bottle{Source: "dev.yaml", Egress: manifest.Egress{
		TLS:   "intercept",
		Allow: []manifest.Allowed{{Host: "a.test"}, {Host: "b.test", TLS: "passthrough"}, {Host: "tcp:c.test:22"}},
	}}
	p, err := NewPlan(Request{Image: "busybox", Agent: &manifest.Agent{}, Bottle: bottle, Allow: []string{"d.test"}, Intercept: []string{"e.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.Intercept, " "); got != "a.test d.test e.test" {
		t.Errorf("intercepted: %s", got)
	}
	if got := strings.Join(p.Allow, " "); got != "a.test b.test d.test e.test tcp:c.test:22" {
		t.Errorf("allowed: %s", got)
	}
	ca, err := p.newAuthority("abcdefghij", 0)
	if err != nil || len(ca.Key) == 0 || len(ca.Fingerprint) != 64 {
		t.Errorf("authority %+v, %v", ca, err)
	}
	none, err := (&Plan{}).newAuthority("abcdefghij", 0)
	if err != nil || len(none.Key) != 0 || none.Fingerprint != "" {
		t.Errorf("authority for nothing: %+v, %v", none, err)
	}
}
