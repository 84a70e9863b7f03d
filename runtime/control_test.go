package runtime

import (
	"slices"
	"testing"

	"carboy/runtime/initproto"
	"carboy/runtime/veil"
)

// TestForwardedToAFurtherCommand: by the rule of a start, what was forwarded is
// secret, and what was written is not.
func TestForwardedToAFurtherCommand(t *testing.T) {
	b := &Bottle{proxyLog: &proxyLog{veil: veil.New(nil)}, command: initproto.Spec{Env: []string{"TOKEN=before", "A=b"}}}
	s := b.complete(initproto.Spec{
		Env:       []string{"TOKEN=forwarded-value", "OPEN=said-to-everybody", "LANG=en_US.UTF-8"},
		Forwarded: []string{"TOKEN", "LANG"},
	})
	if want := []string{"TOKEN=forwarded-value", "A=b", "OPEN=said-to-everybody", "LANG=en_US.UTF-8"}; !slices.Equal(s.Env, want) || s.Forwarded != nil {
		t.Errorf("%q, and carboy-init is told of %q", s.Env, s.Forwarded)
	}
	line := "forwarded-value said-to-everybody en_US.UTF-8"
	if got := string(b.proxyLog.veil.Hide([]byte(line))); got != "[secret] said-to-everybody en_US.UTF-8" {
		t.Error(got)
	}
}
