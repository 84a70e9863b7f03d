package uplink

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/netns/sysctl"
)

var root = flag.Bool("root", false, "run the tests that need root, in namespaces of their own")

// ownHost moves the test's thread into a network namespace that ends with it.
func ownHost(t *testing.T) {
	t.Helper()
	if !*root {
		t.Skip("needs root: sudo go test ./netns/... -root")
	}
	runtime.LockOSThread() // and never unlock
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	must(t, sysctl.Set(sysctl.Forward, "0"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "-s", "list", "ruleset").Output()
	must(t, err)
	return string(out)
}

// TestFirstAndLast: the first bottle makes what all share, and only the last
// takes it away.
func TestFirstAndLast(t *testing.T) {
	ownHost(t)
	s := Shared{Dir: filepath.Join(t.TempDir(), "egress")}
	used, err := s.ChooseRange(netip.Prefix{}, nil)
	must(t, err)
	must(t, s.Enter(t.Context(), "one", used, nil))
	table := ruleset(t)
	if !strings.Contains(table, used.String()) {
		t.Fatalf("rules:\n%s", table)
	}
	must(t, sysctl.Set(sysctl.Forward, "1")) // as ptp does
	must(t, s.Enter(t.Context(), "two", used, nil))

	other := netip.MustParsePrefix("10.88.0.0/16")
	if _, err := s.ChooseRange(other, nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another range: %v", err)
	}
	if err := s.Enter(t.Context(), "three", other, nil); err == nil {
		t.Error("another range was let in")
	}
	must(t, exec.Command("nft", "flush", "ruleset").Run())
	must(t, s.Reassert(t.Context(), "three")) // is not in
	if now := ruleset(t); now != "" {
		t.Errorf("put back for nobody:\n%s", now)
	}
	must(t, s.Reassert(t.Context(), "two"))
	must(t, s.Leave(t.Context(), "one"))
	if now := ruleset(t); now != table {
		t.Errorf("with one left:\n%s\nnot\n%s", now, table)
	}
	must(t, s.Leave(t.Context(), "two"))
	must(t, s.Leave(t.Context(), "two"))
	if now := ruleset(t); now != "" {
		t.Errorf("rules stay:\n%s", now)
	}
	if now, err := sysctl.Get(sysctl.Forward); err != nil || now != "0" {
		t.Errorf("forwarding is %s, %v", now, err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory stays: %v", err)
	}
}
