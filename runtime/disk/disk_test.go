package disk

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestTree(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	measure := func() int64 {
		t.Helper()
		n, err := Tree(dir)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := measure(); n < 1<<20 || n > 1<<20+64<<10 {
		t.Errorf("%d bytes", n)
	}
	if err := os.Link(big, filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	if n := measure(); n > 1<<20+64<<10 {
		t.Errorf("what two names share counts twice: %d", n)
	}
	before := measure()
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := measure() - before; n < 100*leastSize {
		t.Errorf("a hundred empty files are %d bytes", n)
	}
}

// chain nests directories from inside: no path leads to the last.
func chain(t *testing.T, dir string, depth int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_DIRECTORY, 0)
	for range depth {
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Repeat("d", 200)
		err = unix.Mkdirat(fd, name, 0o700)
		next := -1
		if err == nil {
			next, err = unix.Openat(fd, name, unix.O_DIRECTORY, 0)
		}
		_ = unix.Close(fd)
		fd = next
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "last")
	defer f.Close()
	in, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(in)
	if _, err := unix.Write(in, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
}

func TestLongPaths(t *testing.T) {
	dir := t.TempDir()
	chain(t, dir, 100) // 20,000 bytes
	if n, err := Tree(dir); err != nil || n < 1<<20 {
		t.Errorf("%d, %v", n, err)
	}
	deep := t.TempDir()
	chain(t, deep, mostDepth+10)
	if _, err := Tree(deep); !errdefs.IsResourceExhausted(err) {
		t.Errorf("deep: %v", err)
	}
}

func TestDeleted(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	before := Deleted([]string{self})
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	var where unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &where); err != nil || where.Type == unix.TMPFS_MAGIC {
		t.Skip("the temporary directory is in memory")
	}
	if n := Deleted([]string{self}); n != before {
		t.Errorf("a file with a name: %d", n)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := Deleted([]string{self, self}) - before; n != 1<<20 {
		t.Errorf("without one: %d", n)
	}
}
