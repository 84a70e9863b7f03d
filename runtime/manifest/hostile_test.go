package manifest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// quick is far more than any document takes, and far less than the parser
// takes for some without the checks before it: 36 s for 60 KB of brackets.
const quick = 15 * time.Second

// hostile are documents of about n bytes that are made to hurt who reads them.
func hostile(n int) map[string]string {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 9))
	}
	staircase := ""
	for i := 0; len(staircase) < n; i++ {
		staircase += strings.Repeat(" ", i) + "a:\n"
	}
	return map[string]string{
		"billion laughs": bomb,
		"merge":          "a: &a {x: 1}\nb:\n  <<: *a\n",
		"open brackets":  "env: " + strings.Repeat("[", n),
		"brackets":       "env: " + strings.Repeat("[", n/2) + strings.Repeat("]", n/2),
		"open braces":    "env: " + strings.Repeat("{a: ", n/4),
		"dashes":         strings.Repeat("- ", n/2) + "a",
		"questions":      strings.Repeat("? ", n/2),
		"tags":           "image: " + strings.Repeat("!x ", n/3),
		"anchors":        "image: " + strings.Repeat("&x ", n/3),
		"quotes":         strings.Repeat("'", n),
		"documents":      strings.Repeat("---\n", n/4),
		"staircase":      staircase,
		"too much":       "image: " + strings.Repeat("x", maxYAML),
		"binary":         "image: !!binary aGk=",
		"escape":         "image: \"\\e[2J\"",
		"raw escape":     "image: a\x1b[2J",
		"NUL":            "image: a\x00b",
		"C1":             "image: a\u009bb",
		"not UTF-8":      "image: a\n\xff",
		"key of escapes": "\"\\e[2J\\u202e\": a",
		"long key":       strings.Repeat("k", n) + ": a",
		"keys":           strings.Repeat("k: a\n", n/5),
		"unknown keys":   manyKeys(n),
		"directive":      "%YAML 1.2\n---\nimage: a",
		"not a mapping":  "[a]",
		"long image":     "image: A/" + strings.Repeat("x", n-20),
		"many values":    "ssh:\n" + strings.Repeat("- {host: "+strings.Repeat("\U0001F600", 100)+"}\n", n/500),
		"long path":      "mounts: [{source: /, target: " + strings.Repeat("x", n-50) + "}]",
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "k%d: a\n", i)
	}
	return b.String()
}

func TestHostileDocuments(t *testing.T) {
	for name, text := range hostile(maxYAML - 100) {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, bottle := ParseBottle("/x/bottles/y.yaml", []byte(text))
			_, agent := ParseAgent("/x/agents/y.md", []byte("---\n"+text+"\n---\nprompt"))
			if took := time.Since(start); took > quick {
				t.Errorf("took %v", took)
			}
			for _, err := range []error{bottle, agent} {
				if err == nil {
					t.Fatal("accepted")
				}
				checkShown(t, err)
			}
		})
	}
	if b, err := ParseBottle("y.yaml", []byte("# none\nuser: 'a b'\nenv:\n  A: \"b\\tc\"\n")); err != nil || b.User != "a b" || b.Env["A"] != "b\tc" {
		t.Errorf("a harmless one: %+v, %v", b, err)
	}
}

// checkShown is for errors about files that others wrote.
func checkShown(t *testing.T, err error) {
	t.Helper()
	const most = 20000
	text := err.Error()
	if len(text) > most || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		t.Errorf("%d bytes: %.300q", len(text), text)
	}
}

func TestPromptThatCannotBeShown(t *testing.T) {
	for text, want := range map[string]string{
		"---\nbottle: y\n---\nline\nesc\x1b[2J": "/a.md:5: control character U+001B",
		"---\nbottle: y\n---\n\xff":             "/a.md:4: not UTF-8",
		"\xff":                                  "/a.md:1: not UTF-8",
	} {
		if _, err := ParseAgent("/a.md", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	a, err := ParseAgent("/a.md", []byte("\ufeff---\r\nbottle: y\r\n---\r\nIch prüfe.\r\n\tTab"))
	if err != nil || a.Prompt != "Ich prüfe.\n\tTab" {
		t.Errorf("%+v, %v", a, err)
	}
}

func FuzzParseAgent(f *testing.F) {
	f.Add([]byte(agentText))
	f.Add([]byte("---\n---\n"))
	f.Add([]byte("---\nbottle: a\nenv: {A: 1.10, B: '${C}'}\n---"))
	for _, text := range hostile(200) {
		f.Add([]byte("---\n" + text + "\n---\n"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		start := time.Now()
		a, err := ParseAgent("/x/agents/y.md", b)
		if took := time.Since(start); took > quick {
			t.Errorf("took %v", took)
		}
		if err != nil {
			checkShown(t, err)
			return
		}
		if !ValidName(a.Bottle) || strings.ContainsFunc(a.Prompt, control) {
			t.Errorf("%+v", a)
		}
		for name, value := range a.Env {
			if !forms["variable"].pattern.MatchString(name) || strings.ContainsFunc(value, control) {
				t.Errorf("%q: %q", name, value)
			}
		}
	})
}

func FuzzParseBottle(f *testing.F) {
	f.Add([]byte("image: a\nextends: [b, c]\negress: {allow: [a, {host: b, tls: intercept}]}\nlimits: {cpus: 1.5}\nssh: [{host: a, port: 22}]\n"))
	for _, text := range hostile(200) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		start := time.Now()
		bottle, err := ParseBottle("/x/bottles/y.yaml", b)
		if took := time.Since(start); took > quick {
			t.Errorf("took %v", took)
		}
		if err != nil {
			checkShown(t, err)
			return
		}
		for _, name := range bottle.Extends {
			if !ValidName(name) {
				t.Errorf("extends %q", name)
			}
		}
	})
}

func FuzzFrontMatter(f *testing.F) {
	f.Add("---\na: b\n---\nc")
	f.Add("---\n---\n")
	f.Add("\ufeff---\r\n---")
	f.Fuzz(func(t *testing.T, text string) {
		head, body := frontMatter([]byte(text))
		lines := strings.Count(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
		if got := strings.Count(string(head), "\n") + strings.Count(string(body), "\n"); got > lines {
			t.Errorf("%q became %q and %q", text, head, body)
		}
		if len(head) > 0 && head[0] != '\n' {
			t.Errorf("the line numbers of %q are lost", text)
		}
	})
}

func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"a", "${A}", "?", "? which", "credential:x", "${", "${}", "fd:3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := ParseSource(text)
		if s.Kind == Literal && s.Text != text || len(s.Text) > len(text) {
			t.Errorf("%q is %+v", text, s)
		}
		if g := ParseGiven(text); g.Kind != File && g.Kind != Descriptor && g.Kind != Credential || g.Kind == File && g.Text != text {
			t.Errorf("%q is %+v", text, g)
		}
	})
}
