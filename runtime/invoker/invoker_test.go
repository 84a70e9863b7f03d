package invoker

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

var rootFlag = flag.Bool("root", false, "run the tests that need root")

func needRoot(t *testing.T) {
	t.Helper()
	if !*rootFlag {
		t.Skip("needs root: go test ./runtime/invoker -root")
	}
}

func TestCurrentReadsSudo(t *testing.T) {
	needRoot(t)
	t.Setenv("SUDO_UID", "65534")
	u, err := Current()
	if err != nil || u.UID != 65534 || u.Name != "nobody" {
		t.Errorf("%+v, %v", u, err)
	}
	for _, bad := range []string{"root", "-1"} {
		t.Setenv("SUDO_UID", bad)
		if u, err := Current(); err == nil {
			t.Errorf("SUDO_UID=%s gave %+v", bad, u)
		}
	}
}

func TestOpenHasTheInvokersRights(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // others have to get this far
			t.Fatal(err)
		}
	}
	mine, roots := filepath.Join(dir, "mine"), filepath.Join(dir, "roots")
	write(t, mine, 0o400, 65534)
	write(t, roots, 0o400, 0)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(roots, link); err != nil {
		t.Fatal(err)
	}
	nobody := User{UID: 65534, GID: 65534, Name: "nobody"}
	var wg sync.WaitGroup
	for range 50 { // threads must not leak the change to each other
		wg.Go(func() {
			if b, err := nobody.ReadFile(mine, 100); err != nil || string(b) != "text" {
				t.Errorf("own file: %q, %v", b, err)
			}
			for _, path := range []string{roots, link, "/etc/shadow"} {
				if _, err := nobody.ReadFile(path, 100); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "nobody") {
					t.Errorf("%s: %v", path, err)
				}
			}
			if _, err := os.ReadFile(roots); err != nil {
				t.Errorf("root lost its rights: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestOpenNeverWaits(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	u := User{UID: os.Getuid()}
	for _, path := range []string{fifo, "/dev/zero", "/"} {
		if _, err := u.Open(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := u.ReadFile("/proc/self/exe", 10); err == nil {
		t.Error("a file over the limit was read")
	}
}

func write(t *testing.T, path string, mode fs.FileMode, uid int) {
	t.Helper()
	if err := os.WriteFile(path, []byte("text"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
}
