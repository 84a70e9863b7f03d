package cmd

import (
	"errors"
	"fmt"
	"testing"

	"carboy/runtime/changes"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestWords: a class is for programs, but what the kernel said is the reason.
func TestWords(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("use the other: %w", errdefs.ErrPermissionDenied), "use the other"},
		{fmt.Errorf("it is there: %w", errdefs.ErrAlreadyExists), "it is there"},
		{fmt.Errorf("write %q: %w", "ro/f", unix.EACCES), `write "ro/f": permission denied`},
		{fmt.Errorf("open \x1b]0;me\a\u009b2J\x9b\r\x7f\u202ename\u2066\u200b\ttab\nnäme: %w", errdefs.ErrInvalidArgument), `open \x1b]0;me\a\u009b2J` + "\ufffd" + `\r\x7f\u202ename\u2066\u200b` + "\ttab\nnäme"},
		{errors.Join(fmt.Errorf("a: %w", unix.EACCES), fmt.Errorf("b: %w", errdefs.ErrUnavailable)), "a: permission denied\nb"},
	} {
		if got := words(tt.err); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// TestQuestion has what programs take commands from apart.
func TestQuestion(t *testing.T) {
	all := []changes.Change{{Kind: "A", Path: ".envrc", Type: "file"}, {Kind: "M", Path: "a", Type: "file"}}
	if got, want := question(all), "M a\nprograms of yours take commands from these:\nA .envrc\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := question(all[1:]), "M a\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
