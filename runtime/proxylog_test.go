package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/natefinch/lumberjack.v2"

	"carboy/runtime/proxy"
	"carboy/runtime/veil"
)

// TestProxyLogHoldsNoSecret: nor does its end, which is part of errors.
func TestProxyLogHoldsNoSecret(t *testing.T) {
	p := &Plan{
		Proxy:       ProxyPlan{Engine: proxy.Allowlist},
		env:         map[string]string{"TOKEN": "Tok3n-of-Somebody", "OPEN": "said-to-everybody", "BASE": "https://api.test/v1"},
		secret:      map[string]bool{"TOKEN": true, "OPEN": false, "BASE": true},
		secretFiles: map[string][]byte{"auth.json": []byte(`{"access": "acc3ss/+token", "n": 1234567890123}`), "key": []byte("-----BEGIN-----\nabcdefgh\nxyz\n")},
	}
	path := filepath.Join(t.TempDir(), proxyLogFile)
	l := &proxyLog{veil: veil.New(unspoken(p.secretValues())), file: lumberjack.Logger{Filename: path}, warn: func(err error) { t.Error(err) }}
	out := l.engineStreams()
	for i, text := range []string{
		`{"url":"http://evil.test/?t=Tok3n-of-Somebody&u=said-to-everybody"}`, `{"host":"tok3n-of-somebody.evil.test:443"}`,
		`{"url":"http://evil.test/acc3ss%2F%2Btoken/1234567890123","for":"https://api.test/v1"}`, "the line abcdefgh of a key",
	} {
		half := len(text) / 2
		_, first := out.Stdout.Write([]byte(text[:half]))
		_, other := fmt.Fprintf(out.Stderr, "warning %d\n", i)
		_, second := out.Stdout.Write([]byte(text[half:] + "\n"))
		if err := errors.Join(first, other, second); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = out.Stderr.Write([]byte("panic: Tok3n-of-Some"))
	_, _ = out.Stderr.Write([]byte("body"))
	_ = l.engineStreams()
	l.note("it ended with Tok3n-of-Somebody")
	end := strings.Join(l.tail.lines(100), "\n")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"file": string(file), "end": end} {
		for _, want := range []string{
			`{"url":"http://evil.test/?t=[secret]&u=said-to-everybody"}`, `{"host":"[secret].evil.test:443"}`,
			`{"url":"http://evil.test/[secret]/[secret]","for":"https://api.test/v1"}`, "the line [secret] of a key",
			"warning 3\n", "panic: [secret]\n", "it ended with [secret]",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s has no %s:\n%s", where, want, text)
			}
		}
	}
}
