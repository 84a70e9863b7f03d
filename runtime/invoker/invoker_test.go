package invoker

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	for _, bad := range []string{"root", "-1", "4294967295", "1 "} {
		t.Setenv("SUDO_UID", bad)
		if u, err := Current(); err == nil {
			t.Errorf("SUDO_UID=%s gave %+v", bad, u)
		}
	}
}

func TestCurrentOfAUserNobodyKnows(t *testing.T) {
	needRoot(t)
	t.Setenv("HOME", "/root")
	t.Setenv("SUDO_UID", "1999999999")
	for gid, want := range map[string]int{"": nobody, "1234": 1234} {
		t.Setenv("SUDO_GID", gid)
		if u, err := Current(); err != nil || u.UID != 1999999999 || u.GID != want || u.Home != "" || u.ConfigDir() != "" {
			t.Errorf("SUDO_GID=%s: %+v, %v", gid, u, err)
		}
	}
	t.Setenv("SUDO_GID", "wheel")
	if u, err := Current(); err == nil {
		t.Errorf("SUDO_GID=wheel gave %+v", u)
	}
}

func TestHomeIsTheEnvironmentsOnlyWithoutSudo(t *testing.T) {
	t.Setenv("SUDO_UID", "")
	for home, want := range map[string]bool{"/some/where": true, "some/where": false, "": false} {
		t.Setenv("HOME", home)
		u, err := Current()
		if err != nil || (u.Home == home) != want {
			t.Errorf("HOME=%s: %+v, %v", home, u, err)
		}
	}
	needRoot(t)
	t.Setenv("SUDO_UID", "65534")
	t.Setenv("HOME", "/some/where")
	if u, err := Current(); err != nil || u.Home == "/some/where" {
		t.Errorf("behind sudo: %+v, %v", u, err)
	}
}

func TestOpenHasTheInvokersRights(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
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
	if _, err := u.ReadFile(os.Args[0], 10); err == nil {
		t.Error("a file over the limit was read")
	}
}

// CAP_SYS_PTRACE alone would lead through /proc into directories of others.
func TestOpenHasNoCapabilities(t *testing.T) {
	needRoot(t)
	dir := t.TempDir() // root's alone
	write(t, filepath.Join(dir, "public"), 0o444, 0)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), "sleep", "60")
	child.Dir = dir
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	around := "/proc/" + strconv.Itoa(child.Process.Pid) + "/cwd/public"
	if _, err := os.ReadFile(around); err != nil {
		t.Errorf("root: %v", err)
	}
	err := User{UID: 65534, GID: 65534}.Do(func() error {
		if _, err := os.ReadFile(around); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", around, err)
		}
		status, err := os.ReadFile("/proc/thread-self/status")
		for _, set := range []string{"CapEff", "CapPrm", "CapInh"} {
			if !strings.Contains(string(status), set+":\t0000000000000000\n") {
				t.Errorf("%s is not empty:\n%s", set, status)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestOpenLeadsToNothingOfRoots has a user's path that names what root has open,
// in a directory that the user cannot reach.
func TestOpenLeadsToNothingOfRoots(t *testing.T) {
	needRoot(t)
	hidden := t.TempDir()
	write(t, filepath.Join(hidden, "public"), 0o666, 0)
	inner := filepath.Join(hidden, "dir")
	if err := errors.Join(os.Mkdir(inner, 0o777), os.Chmod(inner, 0o777), os.Chmod(hidden, 0o700)); err != nil {
		t.Fatal(err)
	}
	shown := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(shown), 0o755), os.Chmod(shown, 0o777)); err != nil {
		t.Fatal(err)
	}
	open := func(path string) string {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	}
	file, dir := open(filepath.Join(hidden, "public")), open(inner)
	link := filepath.Join(shown, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	u := User{UID: 65534, GID: 65534, Name: "nobody"}
	if err := u.Do(func() error { return os.WriteFile(dir+"/through", nil, 0o600) }); err != nil {
		t.Fatalf("the user could not get there in any case: %v", err) // else nothing below is proved
	}
	for _, path := range []string{file, "/proc/thread-self/cwd/invoker.go", "/proc/self/root/etc/passwd"} {
		if f, err := u.Open(path); !errors.Is(err, unix.ELOOP) || !strings.Contains(err.Error(), "name the file itself") {
			t.Errorf("%s: %v, %v", path, f, err)
		}
		if got, err := u.RealPath(path); err == nil {
			t.Errorf("%s is %s", path, got)
		}
	}
	for _, path := range []string{dir, link, dir + "/.", dir + "/../dir"} {
		if f, err := u.OpenDir(path); !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: %v, %v", path, f, err)
		}
		if u.IsDir(path) {
			t.Errorf("%s is seen", path)
		}
		if o, err := u.Create(path + "/new"); err == nil {
			t.Errorf("%s/new: %v", path, o)
		}
	}
	if err := errors.Join(os.Remove(link), os.Symlink(shown, link)); err != nil { // a link of a directory's own is followed
		t.Fatal(err)
	}
	if f, err := u.OpenDir(link); err != nil || f.Close() != nil || !u.IsDir(link) {
		t.Errorf("a link to the user's own: %v", err)
	}
}

func TestOutputAppearsWhole(t *testing.T) {
	u := User{UID: os.Getuid(), GID: os.Getgid()}
	dir := t.TempDir()
	t.Chdir(dir)
	for _, path := range []string{"relative", filepath.Join(dir, "absolute"), "relative"} { // and once more, over the first
		o, err := u.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.WriteString("text"); err != nil {
			t.Fatal(err)
		}
		if err := o.Commit(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "text" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		if o, err = u.Create(path); err != nil {
			t.Fatal(err)
		}
		if err := o.Discard(); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"", ".", "..", dir, "/", dir + "/"} {
		if o, err := u.Create(path); err == nil {
			t.Errorf("%q: %v", path, o)
		}
	}
	if err := os.Symlink("relative", "link"); err != nil {
		t.Fatal(err)
	}
	if o, err := u.Create("link"); err == nil {
		t.Errorf("a link: %v", o)
	}
	left, err := os.ReadDir(dir)
	if len(left) != 3 || err != nil {
		t.Errorf("%v, %v", left, err)
	}
}

func TestOpenUsesTheInvokersGroups(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "group")
	write(t, file, 0o040, 0)
	if err := os.Chown(file, 0, 4321); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		who User
		may bool
	}{
		{User{UID: 65534, GID: 65534, Groups: []int{65534, 4321}}, true},
		{User{UID: 65534, GID: 4321}, true},
		{User{UID: 65534, GID: 65534, Groups: []int{65534}}, false},
	} {
		if _, err := tt.who.ReadFile(file, 10); (err == nil) != tt.may {
			t.Errorf("%+v: %v", tt.who, err)
		}
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
