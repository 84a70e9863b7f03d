package registry

import (
	"strings"
	"testing"
)

const auth = "ZGV2OnNlc2FtZTp4" // dev:sesame:x

func TestDockerConfig(t *testing.T) {
	for _, tt := range []struct {
		config, host string
		want         login
	}{
		{`{"auths": {"a.test": {"auth": "` + auth + `"}}}`, "a.test", login{user: "dev", secret: "sesame:x"}},
		{`{"auths": {"a.test": {"auth": "` + auth + `"}}}`, "b.test", login{}},
		{`{"auths": {"a.test:5000": {"auth": "` + auth + `"}}}`, "a.test", login{}},
		{`{"auths": {"https://a.test/v2/": {"auth": "` + auth + `"}}}`, "a.test", login{user: "dev", secret: "sesame:x"}},
		{`{"auths": {"https://index.docker.io/v1/": {"auth": "` + auth + `"}}}`, "registry-1.docker.io", login{user: "dev", secret: "sesame:x"}},
		{`{"auths": {"docker.io": {"auth": "` + auth + `"}}}`, "docker.io", login{user: "dev", secret: "sesame:x"}},
		{`{"auths": {"a.test": {"username": "dev", "password": "p"}}}`, "a.test", login{user: "dev", secret: "p"}},
		{`{"auths": {"a.test": {"auth": "` + auth + `", "identitytoken": "t"}}}`, "a.test", login{secret: "t"}},
		{`{}`, "a.test", login{}},
	} {
		c, err := parse([]byte(tt.config))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.login(tt.host); got != tt.want || err != nil {
			t.Errorf("%s in %s: %+v, %v", tt.host, tt.config, got, err)
		}
	}
}

func TestHelperOfARegistry(t *testing.T) {
	c, err := parse([]byte(`{"credsStore": "all", "credHelpers": {"a.test": "one", "https://index.docker.io/v1/": "hub"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"a.test": "one", "b.test": "all", "docker.io": "hub"} {
		if got := c.helper(host); got != want {
			t.Errorf("%s: %q", host, got)
		}
	}
	for _, name := range []string{"", "../x", "a/b", "-x", "a b", "a\x00"} {
		if helperName.MatchString(name) {
			t.Errorf("%q passes for a helper", name)
		}
	}
}

func TestWrongConfigShowsNoSecret(t *testing.T) {
	for _, bad := range []string{`{"auths": sesame}`, `{"auths": "sesame"}`, `sesame`} {
		if _, err := parse([]byte(bad)); err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	c, err := parse([]byte(`{"auths": {"a.test": {"auth": "c2VzYW1l"}}}`)) // sesame
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.login("a.test"); err == nil || strings.Contains(err.Error(), "c2VzYW1l") {
		t.Errorf("%v", err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\x1b[31mb": `a\x1b[31mb`, "ä": `\u00e4`, "two\nlines": "two; lines", strings.Repeat("x", 2000): strings.Repeat("x", mostShown-3) + "...",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
