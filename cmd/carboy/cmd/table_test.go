package cmd

import (
	"bytes"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/initproto"
)

// printed is what a list command prints with these flags.
func printed[T any](t *testing.T, out *table[T], rows []T, flags ...string) (string, error) {
	t.Helper()
	var text bytes.Buffer
	c := &cobra.Command{SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return out.print(&text, rows) }}
	out.register(c)
	c.SetArgs(flags)
	err := c.ExecuteContext(t.Context())
	return text.String(), err
}

func TestTable(t *testing.T) {
	rows := []bottleView{{Name: "a", Image: "i<", State: "leaking", Reason: "busy"}, {Name: "b"}}
	for _, tt := range []struct {
		flags []string
		want  string
	}{
		{[]string{"-q"}, "a\nb\n"},
		{[]string{"--format", `{{.Name}}\t{{.State}}`}, "a\tleaking\nb\t\n"},
		{[]string{"--format", "{{json .Image}}"}, "\"i<\"\n\"\"\n"},
		{[]string{"--format", "{{if .ExitCode}}x{{end}}"}, "\n\n"},
	} {
		if got, err := printed(t, bottleTable(), rows, tt.flags...); err != nil || got != tt.want {
			t.Errorf("%q: %q, %v, want %q", tt.flags, got, err, tt.want)
		}
	}
	if got, err := printed(t, bottleTable(), rows); err != nil || !strings.HasSuffix(got, "a is leaking, `carboy gc` tries again: busy\n") {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := printed(t, bottleTable(), nil, "--json"); err != nil || got != "[]\n" {
		t.Errorf("no rows: %q, %v", got, err)
	}
}

func TestTableRefuses(t *testing.T) {
	for _, flags := range [][]string{
		{"--format", "{{"}, {"--format", "{{.Nope}}"}, {"--format", "{{nope .}}"}, {"--json", "-q"}, {"--json", "--format", "x"},
	} {
		_, err := printed(t, bottleTable(), []bottleView{{}}, flags...)
		if !errdefs.IsInvalidArgument(err) || flags[0] == "--format" && !strings.Contains(err.Error(), flags[1]) {
			t.Errorf("%q: %v", flags, err)
		}
	}
}

// TestTableShowsNoControlCharacters of what an agent calls its processes.
func TestTableShowsNoControlCharacters(t *testing.T) {
	rows := []initproto.Listed{{PID: 7, Command: "a\x1b[2J\nb"}}
	for _, flags := range [][]string{nil, {"--format", "{{.Command}}"}, {"--format", "{{json .}}"}, {"--json"}} {
		got, err := printed(t, processTable(), rows, flags...)
		if err != nil || !strings.Contains(got, "[2J") || strings.ContainsRune(got, 0x1b) || strings.Contains(got, "\nb") {
			t.Errorf("%q: %q, %v", flags, got, err)
		}
	}
}
