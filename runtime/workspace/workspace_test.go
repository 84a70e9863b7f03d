package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/invoker"
)

// rig is a project and its copy.
type rig struct {
	*testing.T
	from, to string
	index    Index
}

func newRig(t *testing.T, files ...string) *rig {
	r := &rig{T: t, from: t.TempDir(), to: t.TempDir()}
	for _, f := range files {
		r.put(f, "text of "+f)
	}
	return r
}

func (r *rig) put(name, text string) {
	r.Helper()
	path := filepath.Join(r.from, name)
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	r.must(os.WriteFile(path, []byte(text), 0o644))
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// update copies once more, through a written index, and says what was done.
func (r *rig) update() (changed bool, err error) {
	r.Helper()
	s := Source{Path: r.from, Top: open(r.T, r.from), User: invoker.User{UID: os.Getuid(), Name: "me"}}
	began := time.Now()
	now, err := s.Scan(r.Context())
	if err != nil {
		return false, err
	}
	changed, err = s.Update(r.Context(), open(r.T, r.to), Owner{os.Getuid(), os.Getgid()}, r.index, now)
	if err != nil || !changed {
		return changed, err
	}
	var b bytes.Buffer
	r.must(now.Write(&b, began))
	r.index, err = ReadIndex(b.Bytes())
	return changed, err
}

// copied copies and compares both trees.
func (r *rig) copied() {
	r.Helper()
	if _, err := r.update(); err != nil {
		r.Fatal(err)
	}
	if want, have := tree(r.T, r.from), tree(r.T, r.to); !slices.Equal(want, have) {
		r.Errorf("the copy differs:\n%s\nfrom\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// settled waits until no file is so new that it is copied again for that alone.
func (r *rig) settled() {
	r.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		changed, err := r.update()
		r.must(err)
		if !changed {
			return
		}
		if time.Now().After(deadline) {
			r.Fatal("an unchanged tree is copied again and again")
		}
	}
}

// tree describes all of a directory, and which files are one.
func tree(t *testing.T, dir string) (lines []string) {
	t.Helper()
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		line := fmt.Sprintf("%q %o %d", name, st.Mode, st.Mtim.Nano())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			line += fmt.Sprintf(" %d %.40q = %q", len(text), text, first[st.Ino])
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestCopy(t *testing.T) {
	r := newRig(t, "a", "d/b", "d/e/f", "new\nline", "no\xff\xfeutf8", " ", "-rf", "d/..c")
	r.must(os.Chmod(filepath.Join(r.from, "a"), 0o751))
	r.must(os.Chmod(filepath.Join(r.from, "d/e"), 0o1770))
	r.must(os.Symlink("../../outside", filepath.Join(r.from, "d/link")))
	r.must(os.Symlink("/etc/passwd", filepath.Join(r.from, "passwd")))
	r.must(os.Mkdir(filepath.Join(r.from, "empty"), 0o700))
	r.must(os.Chtimes(filepath.Join(r.from, "d/b"), time.Unix(1, 0), time.Unix(1e9, 123456789)))
	r.must(os.Chtimes(filepath.Join(r.from, "d"), time.Unix(1, 0), time.Unix(1e9, 0)))
	r.copied()
	r.settled()
}

// TestChanges makes every kind of change to a copied tree.
func TestChanges(t *testing.T) {
	for name, change := range map[string]func(r *rig){
		"content":           func(r *rig) { r.put("d/b", "other") },
		"same size":         func(r *rig) { r.put("d/b", "TEXT of d/b") },
		"new file":          func(r *rig) { r.put("d/n/e/w", "x") },
		"removed file":      func(r *rig) { r.must(os.Remove(filepath.Join(r.from, "d/b"))) },
		"removed directory": func(r *rig) { r.must(os.RemoveAll(filepath.Join(r.from, "d"))) },
		"renamed directory": func(r *rig) { r.must(os.Rename(filepath.Join(r.from, "d"), filepath.Join(r.from, "c"))) },
		"mode":              func(r *rig) { r.must(os.Chmod(filepath.Join(r.from, "a"), 0o600)) },
		"mode of directory": func(r *rig) { r.must(os.Chmod(filepath.Join(r.from, "d/e"), 0o700)) },
		"mode of all":       func(r *rig) { r.must(os.Chmod(r.from, 0o711)) },
		"time":              func(r *rig) { r.must(os.Chtimes(filepath.Join(r.from, "a"), time.Time{}, time.Unix(5, 0))) },
		"file to directory": func(r *rig) { r.must(os.Remove(filepath.Join(r.from, "a"))); r.put("a/x", "y") },
		"directory to file": func(r *rig) { r.must(os.RemoveAll(filepath.Join(r.from, "d"))); r.put("d", "y") },
		"directory to link": func(r *rig) {
			r.must(os.RemoveAll(filepath.Join(r.from, "d")))
			r.must(os.Symlink("/etc", filepath.Join(r.from, "d")))
		},
		"link to directory": func(r *rig) { r.must(os.Remove(filepath.Join(r.from, "link"))); r.put("link/x", "y") },
		"target of a link": func(r *rig) {
			r.must(os.Remove(filepath.Join(r.from, "link")))
			r.must(os.Symlink("b", filepath.Join(r.from, "link")))
		},
		"new hard link":      func(r *rig) { r.must(os.Link(filepath.Join(r.from, "a"), filepath.Join(r.from, "d/e/a"))) },
		"write to hard link": func(r *rig) { r.put("h2", "new") },
		"parted hard link":   func(r *rig) { r.must(os.Remove(filepath.Join(r.from, "h1"))); r.put("h1", "own") },
		"swapped files": func(r *rig) {
			for _, m := range [][2]string{{"a", "t"}, {"d/b", "a"}, {"t", "d/b"}} {
				r.must(os.Rename(filepath.Join(r.from, m[0]), filepath.Join(r.from, m[1])))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "a", "d/b", "d/e/f", "h1", "z")
			r.must(os.Symlink("a", filepath.Join(r.from, "link")))
			r.must(os.Link(filepath.Join(r.from, "h1"), filepath.Join(r.from, "h2")))
			r.must(os.Link(filepath.Join(r.from, "h1"), filepath.Join(r.from, "d/h3")))
			r.copied()
			r.settled()
			change(r)
			if changed, err := r.update(); err != nil || !changed {
				t.Fatalf("changed %v, %v", changed, err)
			}
			r.copied()
		})
	}
}

// TestOnlyTheChanged looks at what is written again: nothing but the changed.
func TestOnlyTheChanged(t *testing.T) {
	r := newRig(t, "a", "d/b", "d/e/f")
	r.copied()
	r.settled()
	before, err := os.Stat(filepath.Join(r.to, "d/b"))
	r.must(err)
	r.put("a", "new")
	r.copied()
	after, err := os.Stat(filepath.Join(r.to, "d/b"))
	r.must(err)
	if !os.SameFile(before, after) {
		t.Error("an unchanged file was copied again")
	}
}

func TestAttributes(t *testing.T) {
	r := newRig(t, "a", "d/b")
	for _, name := range []string{"a", "d"} {
		err := unix.Setxattr(filepath.Join(r.from, name), "user.carboy", []byte("value\x00\xff"), 0)
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatalf("the temporary directory takes no attributes: set TMPDIR to one that does: %v", err)
		}
		r.must(err)
	}
	r.must(os.Chmod(filepath.Join(r.from, "a"), 0o755|fs.ModeSetuid|fs.ModeSetgid))
	if _, err := r.update(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "d"} {
		value := make([]byte, 64)
		n, err := unix.Getxattr(filepath.Join(r.to, name), "user.carboy", value)
		if err != nil || string(value[:n]) != "value\x00\xff" {
			t.Errorf("%s: %q, %v", name, value[:max(n, 0)], err)
		}
	}
	if st, err := os.Stat(filepath.Join(r.to, "a")); err != nil || st.Mode() != 0o755 {
		t.Errorf("mode %v, %v: a file gives its owner's rights away", st.Mode(), err)
	}
}

func TestSpecialFilesAreRefused(t *testing.T) {
	r := newRig(t, "a")
	r.must(unix.Mkfifo(filepath.Join(r.from, "pi\npe"), 0o600))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	r.must(err)
	defer unix.Close(fd)
	r.must(unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(r.from, "sock")}))
	_, err = r.update()
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"pi\npe" is a FIFO, "sock" is a socket`) {
		t.Errorf("%v", err)
	}
	r.put(".carboyignore", "sock\npi*\n")
	r.must(os.Remove(filepath.Join(r.from, "sock"))) // tree would see it
	r.must(os.Remove(filepath.Join(r.from, "pi\npe")))
	r.copied()
}

func TestIgnored(t *testing.T) {
	for name, tt := range map[string]struct {
		docker, carboy string
		want           []string
	}{
		"nothing":     {"", "", []string{"a.log", "b/c.log", "b/d", "node/x/y"}},
		"names":       {"*.log\nnode\n", "", []string{".dockerignore", "b/c.log", "b/d"}},
		"both":        {"*.log\n", "**/d\nnode\n", []string{".carboyignore", ".dockerignore", "b/c.log"}},
		"exclusion":   {"**/*.log\n", "!b/c.log\nnode\n.dockerignore\n", []string{".carboyignore", "b/c.log", "b/d"}},
		"dir, but":    {"b\nnode\n!b/d\n", "", []string{".dockerignore", "a.log", "b/d"}},
		"everything":  {"*\n", "", nil},
		"all but one": {"*\n!node/x\n", "", []string{"node/x/y"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "a.log", "b/c.log", "b/d", "node/x/y")
			if tt.docker != "" {
				r.put(".dockerignore", tt.docker)
			}
			if tt.carboy != "" {
				r.put(".carboyignore", tt.carboy)
			}
			if _, err := r.update(); err != nil {
				t.Fatal(err)
			}
			var have []string
			r.must(filepath.WalkDir(r.to, func(path string, e fs.DirEntry, err error) error {
				if !e.IsDir() {
					have = append(have, strings.TrimPrefix(path, r.to+"/"))
				} else if list, _ := os.ReadDir(path); len(list) == 0 && path != r.to {
					t.Errorf("empty directory %s", path)
				}
				return err
			}))
			if !slices.Equal(have, tt.want) {
				t.Errorf("copied %q, want %q", have, tt.want)
			}
		})
	}
}

func TestSparseFilesStaySparse(t *testing.T) {
	r := newRig(t)
	f, err := os.Create(filepath.Join(r.from, "big"))
	r.must(err)
	const size, at = 2 << 30, 1 << 30
	r.must(f.Truncate(size))
	_, err = f.WriteAt([]byte("middle"), at)
	r.must(err)
	r.must(f.Close())
	if _, err := r.update(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	r.must(unix.Stat(filepath.Join(r.to, "big"), &st))
	if st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
	}
	c, err := os.Open(filepath.Join(r.to, "big"))
	r.must(err)
	defer c.Close()
	b := make([]byte, 8)
	_, err = c.ReadAt(b, at-1)
	r.must(err)
	if string(b) != "\x00middle\x00" {
		t.Errorf("%q", b)
	}
}

// TestDeep has paths that the kernel does not take at once.
func TestDeep(t *testing.T) {
	r := newRig(t, "top")
	const depth = 600
	name := strings.Repeat("n", 20)
	fd, err := unix.Open(r.from, unix.O_DIRECTORY, 0)
	r.must(err)
	for range depth {
		r.must(unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY, 0)
		r.must(err)
		unix.Close(fd)
		fd = next
	}
	leaf, err := unix.Openat(fd, "leaf", unix.O_CREAT|unix.O_WRONLY, 0o644)
	r.must(err)
	unix.Close(leaf)
	unix.Close(fd)
	if _, err := r.update(); err != nil {
		t.Fatal(err)
	}
	r.settled()
	fd, err = unix.Open(r.to, unix.O_DIRECTORY, 0)
	r.must(err)
	for range depth {
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY, 0)
		r.must(err)
		unix.Close(fd)
		fd = next
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, "leaf", &st, 0); err != nil {
		t.Error(err)
	}
	unix.Close(fd)
}

// TestWhileItChanges copies a directory that another writes to: what was copied
// is never half of one state and half of another.
func TestWhileItChanges(t *testing.T) {
	r := newRig(t, "still")
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	const size = 1 << 20
	writers.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			name := filepath.Join(r.from, fmt.Sprint("f", n%20))
			_ = os.WriteFile(name+".t", bytes.Repeat([]byte{byte('a' + n%26)}, size), 0o644)
			_ = os.Rename(name+".t", name)
			_ = os.Remove(filepath.Join(r.from, fmt.Sprint("f", (n+7)%20)))
			_ = os.MkdirAll(filepath.Join(r.from, fmt.Sprint("d", n%5), "x"), 0o755)
			_ = os.RemoveAll(filepath.Join(r.from, fmt.Sprint("d", (n+2)%5)))
		}
	})
	for range 20 {
		if _, err := r.update(); err != nil && !errdefs.IsUnavailable(err) {
			t.Errorf("%v", err)
			break
		}
		files, err := filepath.Glob(filepath.Join(r.to, "f?"))
		r.must(err)
		for _, f := range files {
			text, err := os.ReadFile(f)
			r.must(err)
			if len(text) != size || bytes.Count(text, text[:1]) != size {
				t.Errorf("%s is torn: %d bytes", f, len(text))
			}
		}
	}
	stop()
	writers.Wait()
	r.copied()
}

// TestRestless has a file that never stands still while it is read.
func TestRestless(t *testing.T) {
	r := newRig(t)
	f, err := os.Create(filepath.Join(r.from, "log"))
	r.must(err)
	r.must(f.Truncate(1)) // not sparse enough to be skipped
	_, err = f.Write(bytes.Repeat([]byte("x"), 64<<20))
	r.must(err)
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for ctx.Err() == nil {
			_, _ = f.WriteAt([]byte("y"), 0)
		}
	})
	_, err = r.update()
	stop()
	writer.Wait()
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), `"log"`) {
		t.Errorf("%v", err)
	}
	r.must(f.Close())
}

func TestIndexIsRead(t *testing.T) {
	x := Index{Root: Entry{Mode: unix.S_IFDIR | 0o755, Mtime: -5}, Directories: []Directory{
		{Entries: []Entry{{Name: "a\n", Mode: unix.S_IFREG, Size: 1 << 40, Mtime: 7, Ctime: 8, Dev: 1 << 60, Ino: 3, Nlink: 4}, {Name: "gone"}}},
		{Path: "empty"}, {Path: "d/e", Entries: []Entry{{Name: "\xff", Mode: 1}}},
	}}
	var b bytes.Buffer
	if err := x.Write(&b, time.Now()); err != nil {
		t.Fatal(err)
	}
	have, err := ReadIndex(b.Bytes())
	x.Directories[0].Entries = x.Directories[0].Entries[:1] // what vanished is not kept
	if err != nil || fmt.Sprintf("%+v", have) != fmt.Sprintf("%+v", x) {
		t.Errorf("%+v, %v, want %+v", have, err, x)
	}
	for n := range b.Len() {
		if _, err := ReadIndex(b.Bytes()[:n]); err == nil {
			t.Errorf("%d bytes of %d are an index", n, b.Len())
		}
	}
}
