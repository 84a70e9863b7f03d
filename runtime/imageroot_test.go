package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadInRootOpensNothingButFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: sudo go test ./runtime")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil { // of /dev/null
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	opened := watch(t, dir)
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"device", "fifo", "."} {
		if text, err := readInRoot(root, name); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for name, want := range map[string]string{"file": "text", "link": "text", "none": ""} {
		if text, err := readInRoot(root, name); err != nil || text != want {
			t.Errorf("%s: %q, want %q: %v", name, text, want, err)
		}
	}
	if names := opened(); names != "file" {
		t.Errorf("opened: %s", names)
	}
}

// watch returns what tells the names of all that was opened in dir since,
// where one follows itself once.
func watch(t *testing.T, dir string) func() string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() string {
		events := make([]byte, 4096)
		n, err := unix.Read(fd, events)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for events = events[:n]; len(events) > 0; {
			size := unix.SizeofInotifyEvent + int(events[12])
			if name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:size]), "\x00"); name != "" {
				names = append(names, name)
			}
			events = events[size:]
		}
		return strings.Join(names, " ")
	}
}
