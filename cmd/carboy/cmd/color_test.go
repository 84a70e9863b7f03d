package cmd

import (
	"slices"
	"testing"

	"carboy/runtime/invoker"
)

// TestNoColor: what writes colours is BuildKit's progress, which looks there.
func TestNoColor(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	if env := clientEnv(invoker.User{}); !slices.Contains(env, "NO_COLOR=1") {
		t.Errorf("%q", env)
	}
}
