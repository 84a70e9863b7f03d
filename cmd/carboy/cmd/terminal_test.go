package cmd

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestStreams(t *testing.T) {
	for _, tt := range []struct {
		name       string
		in, out    bool
		tty, stdin string
		wantTTY    bool
		wantStdin  bool
		refused    bool
	}{
		{"on a terminal", true, true, "", "", true, true, false},
		{"output to a file", true, false, "", "", false, true, false},
		{"input from a file", false, true, "", "", false, true, false},
		{"neither", false, false, "", "", false, true, false},
		{"terminal without input", true, true, "", "false", true, false, false},
		{"no terminal wanted", true, true, "false", "", false, true, false},
		{"terminal asked, output to a file", true, false, "true", "", true, true, false},
		{"terminal asked, input from a file", false, true, "true", "", false, false, true},
		{"-it, input from a file", false, true, "true", "true", false, false, true},
		{"terminal asked, no input", false, false, "true", "false", true, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gotTTY, gotStdin, err := terminal{in: tt.in, out: tt.out}.streams(tt.tty, tt.stdin)
			if gotTTY != tt.wantTTY || gotStdin != tt.wantStdin || errdefs.IsInvalidArgument(err) != tt.refused {
				t.Errorf("tty %v, stdin %v, %v", gotTTY, gotStdin, err)
			}
		})
	}
}

func TestViewerTellsThatItsReaderHasGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	gone := 0
	v := viewer{w, func() { gone++ }}
	if _, err := v.Write([]byte("x")); err != nil || gone != 0 {
		t.Errorf("with a reader: %v, gone %d", err, gone)
	}
	r.Close()
	if _, err := v.Write([]byte("x")); !errors.Is(err, unix.EPIPE) || gone != 1 {
		t.Errorf("without: %v, gone %d", err, gone)
	}
}

func TestInheritedDescriptors(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if inherited(int(f.Fd())) {
		t.Error("a descriptor of our own was taken")
	}
	given, err := unix.Dup(int(f.Fd())) // without close-on-exec, as a caller leaves it
	if err != nil {
		t.Fatal(err)
	}
	if !inherited(given) || inherited(given) {
		t.Error("one of the caller's was refused, or is left to children")
	}
	unix.Close(given)
	if inherited(given) {
		t.Error("a closed one was taken")
	}
}

func TestReport(t *testing.T) {
	wrong := errdefs.ErrInvalidArgument
	for _, tt := range []struct {
		name string
		err  error
		want int
		text string
	}{
		{"success", nil, 0, ""},
		{"the command's status", exitStatus(42), 42, ""},
		{"status wrapped", failed{exitStatus(126)}, 126, ""},
		{"wrong request", wrong, exitUsage, "carboy: invalid argument\n"},
		{"bring-up", failed{fs.ErrNotExist}, exitCarboy, "carboy: file does not exist\n"},
		{"bring-up of a wrong image", failed{wrong}, exitCarboy, "carboy: invalid argument\n"},
		{"before the bring-up", failedUnlessUsage(fs.ErrNotExist), exitCarboy, "carboy: file does not exist\n"},
		{"wrong request before the bring-up", failedUnlessUsage(wrong), exitUsage, "carboy: invalid argument\n"},
		{"other", fs.ErrNotExist, exitError, "carboy: file does not exist\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if got := report(&out, tt.err); got != tt.want || out.String() != tt.text {
				t.Errorf("%d, %q", got, out.String())
			}
		})
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{"": "", "a-b/c:1": "a-b/c:1", "a b": `"a b"`, "\x1b[2J": `"\x1b[2J"`, "a\u202eb": `"a\u202eb"`, "$x": `"$x"`} {
		if got := quote(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	if got := quoteAll([]string{"sh", "", "-c"}); got != `sh "" -c` {
		t.Error(got)
	}
}

func TestPrintBottles(t *testing.T) {
	var out bytes.Buffer
	if err := bottleTable().print(&out, []bottleView{{Name: "a", Image: "i", Runtime: "runc", Proxy: "allowlist", State: "running", Owner: "root"}}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if got := strings.Fields(lines[0]); strings.Join(got, " ") != "NAME AGENT IMAGE RUNTIME PROXY STATE AGE OWNER" {
		t.Errorf("head %q", got)
	}
	if got := strings.Fields(lines[1]); got[1] != "-" || got[5] != "running" {
		t.Errorf("row %q", got)
	}
}
