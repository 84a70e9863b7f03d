package delegation

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnified(t *testing.T) {
	for text, want := range map[string]string{
		"0::/carboy.slice/carboy@a.service\n": "/carboy.slice/carboy@a.service",
		"0::/\n":                              "",
		"0::/../init.scope\n":                 "",
		"0::/a/../b\n":                        "",
		"4:memory:/a\n0::/b\n":                "",
		"0::/a\n4:memory:/b\n":                "",
		"":                                    "",
	} {
		got, ok := unified(text)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v, want %q", text, got, ok, want)
		}
	}
}

// group looks like one with this member, as far as files can.
func group(t *testing.T, mark, member string) (top string) {
	t.Helper()
	top = t.TempDir()
	dir := filepath.Join(top, "unit")
	if err := os.MkdirAll(filepath.Join(dir, leaf), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{filepath.Join(dir, "cgroup.procs"): member + "\n", filepath.Join(dir, leaf, "cgroup.procs"): ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if mark != "" {
		if err := unix.Setxattr(dir, "user.delegate", []byte(mark), 0); err != nil {
			t.Skipf("SKIPPED: no attributes on files in %s: %v", top, err)
		}
	}
	return top
}

func TestClaim(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for name, c := range map[string]struct{ mark, member, want string }{
		"delegated":     {"1", self, "/unit"},
		"not delegated": {"", self, ""},
		"taken back":    {"0", self, ""},
		"not alone":     {"1", self + "\n1", ""},
		"another's":     {"1", "1", ""},
	} {
		top := group(t, c.mark, c.member)
		got, err := claim(top, "/unit")
		if err != nil || got != c.want {
			t.Errorf("%s: %q, want %q: %v", name, got, c.want, err)
		}
		moved, err := os.ReadFile(filepath.Join(top, "unit", leaf, "cgroup.procs"))
		if err != nil || (string(moved) == self) != (c.want != "") {
			t.Errorf("%s: in the leaf is %q: %v", name, moved, err)
		}
	}
}
