package saved_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/egress"
	"carboy/runtime/egress/saved"
	"carboy/runtime/manifest"
)

func after(t *testing.T, text, do string, hosts ...string) (string, error) {
	t.Helper()
	m := saved.Manifest{Path: "/d/bottles/b.yaml", Text: []byte(text)}
	var err error
	if m.Bottle, err = manifest.ParseBottle(m.Path, m.Text); err != nil {
		t.Fatal(err)
	}
	for _, a := range m.Bottle.Egress.Allow {
		m.Allow = append(m.Allow, a.Host)
	}
	view := egress.View{Hosts: []egress.Host{{Host: "open.test", TLS: "intercept"}}}
	b, err := m.After(egress.Request{Do: do, Hosts: hosts}, view)
	return string(b), err
}

func TestAfter(t *testing.T) {
	for _, c := range []struct{ name, do, hosts, before, after string }{
		{"end of a list", "allow", "b.test", "# top\negress:\n  allow: # hosts\n    # why\n    - a.test # it\n    # foot\n\n  presets: [npm]\nimage: 'x'\n",
			"# top\negress:\n  allow: # hosts\n    # why\n    - a.test # it\n    - b.test\n    # foot\n\n  presets: [npm]\nimage: 'x'\n"},
		{"a list as deep as its key", "allow", "*.b.test tcp:c.test:22", "egress:\n  allow:\n  - a.test", "egress:\n  allow:\n  - a.test\n  - \"*.b.test\"\n  - tcp:c.test:22"},
		{"what is there", "allow", "a.test", "egress: {allow: [A.test, a.test]}\n", "egress: {allow: [A.test, a.test]}\n"},
		{"one of two, twice", "allow", "a.test b.test b.test", "egress: {allow: [a.test]}\n", "egress: {allow: [a.test, b.test]}\n"},
		{"brackets", "allow", "b.test:8443", "egress:\n  allow: [ \"a.test\" ] # é\n", "egress:\n  allow: [ \"a.test\", \"b.test:8443\" ] # é\n"},
		{"brackets over lines", "allow", "b.test", "egress:\n  allow: [\n    c.test, # é\n    {host: a.test, tls: intercept} # last\n  ]\n",
			"egress:\n  allow: [\n    c.test, # é\n    {host: a.test, tls: intercept}, b.test # last\n  ]\n"},
		{"after a mapping", "allow", "b.test", "egress:\n  allow:\n    - host: a.test\n      tls: intercept # x\n\n# end\nimage: x\n",
			"egress:\n  allow:\n    - host: a.test\n      tls: intercept # x\n    - b.test\n\n# end\nimage: x\n"},
		{"empty brackets", "allow", "b.test", "egress:\n  allow: [] # none\nimage: x\n", "egress:\n  allow: # none\n    - b.test\nimage: x\n"},
		{"empty brackets in braces", "allow", "b.test", "egress: {allow: []}\n", "egress: {allow: [b.test]}\n"},
		{"nothing", "allow", "b.test", "egress:\n  allow:\n  # a.test\nimage: x\n", "egress:\n  allow:\n    - b.test\n  # a.test\nimage: x\n"},
		{"no list", "allow", "b.test", "egress: # out\n    # é\n    presets: [npm]\nimage: x\n", "egress: # out\n    allow:\n      - b.test\n    # é\n    presets: [npm]\nimage: x\n"},
		{"no list in braces", "allow", "b.test", "egress: {presets: [npm]} # é\n", "egress: {allow: [b.test], presets: [npm]} # é\n"},
		{"empty braces", "allow", "b.test", "egress: {}\n", "egress: {allow: [b.test]}\n"},
		{"no egress", "allow", "b.test", "image: x\n# end", "image: x\n# end\negress:\n  allow:\n    - b.test"},
		{"empty egress", "allow", "b.test", "egress:\nimage: x\n", "egress:\n  allow:\n    - b.test\nimage: x\n"},
		{"no file to speak of", "allow", "localhost", "", "egress:\n  allow:\n    - \"localhost\"\n"},
		{"comments alone", "allow", "b.test", "---\n# x\n", "---\n# x\negress:\n  allow:\n    - b.test\n"},
		{"TLS that is opened", "allow", "open.test", "egress:\n  allow:\n    - a.test\n", "egress:\n  allow:\n    - a.test\n    - {host: open.test, tls: intercept}\n"},
		{"TLS of all is opened", "allow", "open.test b.test tcp:c.test:22", "egress:\n  tls: intercept\n", "egress:\n  allow:\n    - open.test\n    - {host: b.test, tls: passthrough}\n    - tcp:c.test:22\n  tls: intercept\n"},
		{"lines of Windows", "allow", "b.test", "\ufeff# x\r\negress: # y\r\n  allow: # z\r\n    - a.test # v\r\n# w\r\n", "\ufeff# x\r\negress: # y\r\n  allow: # z\r\n    - a.test # v\r\n    - b.test\r\n# w\r\n"},
		{"texts of many lines", "allow", "b.test", "env:\n  A: |\n    egress:\n      allow: [x]\n  B: >-\n    é\n\n    x\nsecrets: {}\negress:\n  allow: [a.test]\n", "env:\n  A: |\n    egress:\n      allow: [x]\n  B: >-\n    é\n\n    x\nsecrets: {}\negress:\n  allow: [a.test, b.test]\n"},

		{"the first", "deny", "a.test", "egress:\n  allow:\n    # why\n    - a.test # it\n    - b.test # that\n", "egress:\n  allow:\n    # why\n    - b.test # that\n"},
		{"all of a host", "deny", "A.test", "egress:\n  allow:\n    - a.test\n    - b.test\n    - 'a.test:8443'\n    - host: tcp:a.test:22\n\n    - c.a.test\n    - host: \"a.test:81\"\n      tls: passthrough\n  presets: [npm]\n", "egress:\n  allow:\n    - b.test\n\n    - c.a.test\n  presets: [npm]\n"},
		{"a port", "deny", "a.test:8443", "egress: {allow: [a.test, \"a.test:8443\"]}\n", "egress: {allow: [a.test]}\n"},
		{"the last", "deny", "a.test", "egress:\n  allow: # hosts\n    # why\n    - a.test\n  presets: [npm]\n", "egress:\n  allow: [] # hosts\n    # why\n  presets: [npm]\n"},
		{"a wildcard", "deny", "*.a.test", "egress:\n  allow:\n  - \"*.a.test\"\n  - a.test", "egress:\n  allow:\n  - a.test"},
		{"first in brackets", "deny", "a.test", "egress:\n  allow: [\n    a.test, # it\n    {host: b.test} # that\n  ]\n", "egress:\n  allow: [\n    {host: b.test} # that\n  ]\n"},
		{"last in brackets", "deny", "b.test", "egress: {allow: [a.test, {host: b.test, tls: passthrough}], presets: [npm]}\n", "egress: {allow: [a.test], presets: [npm]}\n"},
		{"all in brackets", "deny", "a.test b.test", "egress: {allow: [ a.test, b.test, ]}\n", "egress: {allow: []}\n"},
		{"not there", "deny", "c.test", "egress: {allow: [a.test]}\n", "egress: {allow: [a.test]}\n"},
	} {
		t.Run(c.do+" "+c.name, func(t *testing.T) {
			got, err := after(t, c.before, c.do, strings.Fields(c.hosts)...)
			if err != nil || got != c.after {
				t.Errorf("%v\n%s\nwant\n%s", err, got, c.after)
			}
		})
	}
}

// TestAfterByHand is of what is left to a person.
func TestAfterByHand(t *testing.T) {
	for _, text := range []string{
		"egress: ~\n", "{image: x}\n", "image: x\r\nuser: y\n", "egress: {allow: [host: a.test]}\n",
	} {
		if b, err := after(t, text, "allow", "b.test"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "/d/bottles/b.yaml") {
			t.Errorf("%q became %q, %v", text, b, err)
		}
	}
	if _, err := after(t, "", "allow", "a b"); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

func TestCheckDenied(t *testing.T) {
	text := []byte("egress:\n  presets: [npm]\n  allow:\n    - a.test\n    - \"*.b.test\"\n    - b.test:8443\n")
	m := saved.Manifest{Path: "/d/bottles/b.yaml", Text: text, Allow: []string{"a.test", "*.b.test", "b.test:8443", "registry.npmjs.org", "tcp:git.test:22"}}
	var err error
	if m.Bottle, err = manifest.ParseBottle(m.Path, text); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"a.test": "in /d/bottles/b.yaml:4", "x.b.test": "*.b.test, which is in /d/bottles/b.yaml:5", "b.test": "b.yaml:6", "registry.npmjs.org": "of preset npm in /d/bottles/b.yaml:2",
		"git.test": "not of egress.allow in /d/bottles/b.yaml", "c.test": "", "b.test:81": "", "a.test:8443": "",
	} {
		err := m.CheckDenied(egress.Request{Do: egress.Deny, Hosts: []string{host}})
		if want == "" && err != nil || want != "" && (!errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// TestLive: what was denied without --save can still be saved, and a slip is one.
func TestLive(t *testing.T) {
	m := saved.Manifest{Allow: []string{"a.test", "b.test", "c.test:8443", "x.d.test"}}
	v := egress.View{Hosts: []egress.Host{{Host: "a.test", State: "denied"}, {Host: "b.test", State: "allowed"}, {Host: "*.d.test", State: "paused"}}}
	all := []string{"a.test", "b.test", "c.test", "x.d.test", "unknown.test", "a b"}
	if got := m.Live(egress.Request{Do: egress.Deny, Hosts: all}, v).Hosts; strings.Join(got, " ") != "b.test x.d.test unknown.test a b" {
		t.Errorf("%q", got)
	}
	if got := m.Live(egress.Request{Do: egress.Allow, Hosts: all}, v).Hosts; len(got) != len(all) {
		t.Errorf("%q", got)
	}
}
