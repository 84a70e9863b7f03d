package invoker

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"carboy/test/world"
)

// greeter is a socket that says hello, of a server that runs as that user.
func greeter(t *testing.T, path string, uid int) {
	t.Helper()
	l, err := world.ListenAs(path, uid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, uid, -1)); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello")
			_ = conn.Close()
		}
	}()
}

// TestDialUnixWantsTheUsersServer: root's service would take the caller for
// root.
func TestDialUnixWantsTheUsersServer(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		server int
		taken  bool
	}{"roots": {0, false}, "another's": {65533, false}, "mine": {65534, true}} {
		path := filepath.Join(dir, name)
		greeter(t, path, tc.server)
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		conn, err := User{UID: 65534, GID: 65534, Name: "nobody"}.DialUnix(path)
		if (err == nil) != tc.taken || err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
}

func TestDialUnixHasTheUsersRights(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	mine, roots := filepath.Join(dir, "mine"), filepath.Join(dir, "roots")
	greeter(t, mine, 65534)
	greeter(t, roots, 0)
	u := User{UID: 65534, GID: 65534, Name: "nobody"}
	conn, err := u.DialUnix(mine)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if b, err := io.ReadAll(conn); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := u.DialUnix(roots); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("root's socket: %v", err)
	}
	if conn, err := (User{}).DialUnix(roots); err != nil || conn.Close() != nil {
		t.Errorf("control: %v", err)
	}
}

func TestDialUnixOfWhatIsNoSocket(t *testing.T) {
	u := User{UID: os.Getuid()}
	if _, err := u.DialUnix(os.Args[0]); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a file: %v", err)
	}
	if _, err := u.DialUnix("/no/such/socket"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := u.DialUnix("/proc/self/fd/0"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link of /proc: %v", err)
	}
}
