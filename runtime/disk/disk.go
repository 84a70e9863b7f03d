// Package disk measures what an agent has written, who may hide it: in names that
// are too long to walk through, in files without a name, in a great many files
// of nothing.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	blockSize = 512 // of st_blocks (stat(2))
	leastSize = 1 << 10
	mostDepth = 1000
	batch     = 1024
)

// Tree is how many bytes a directory and all below it take. Each entry counts as
// a KiB at least; what several names share counts once. What goes away meanwhile
// does not count. It fails with errdefs.ErrResourceExhausted for what is nested
// deeper than anybody needs.
func Tree(dir string) (int64, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	t := tree{linked: map[inode]bool{}}
	err = t.walk(f, 0)
	return t.sum, err
}

type inode struct{ dev, ino uint64 }

type tree struct {
	sum    int64
	linked map[inode]bool
}

// walk closes the directory.
func (t *tree) walk(dir *os.File, depth int) (err error) {
	defer func() { err = errors.Join(err, dir.Close()) }()
	if depth > mostDepth {
		return fmt.Errorf("directories are nested more than %d deep: %w", mostDepth, errdefs.ErrResourceExhausted)
	}
	for {
		names, err := dir.Readdirnames(batch)
		for _, name := range names {
			if err := t.entry(dir, name, depth); err != nil && !gone(err) {
				return err
			}
		}
		if errors.Is(err, io.EOF) || gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tree) entry(dir *os.File, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if id := (inode{st.Dev, st.Ino}); st.Nlink > 1 && !isDir {
		if t.linked[id] {
			t.sum += leastSize // the name
			return nil
		}
		t.linked[id] = true
	}
	t.sum += max(leastSize, st.Blocks*blockSize)
	if !isDir {
		return nil
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return t.walk(os.NewFile(uintptr(fd), name), depth+1)
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}

// Deleted is how many bytes files take that have no name any more and that the
// threads still have open or mapped, but for those in memory.
func Deleted(threads []string) int64 {
	var sum int64
	seen := map[inode]bool{}
	for _, tid := range threads {
		for _, kind := range []string{"fd", "map_files"} {
			dir := filepath.Join("/proc", tid, kind)
			f, err := os.Open(dir)
			if err != nil {
				continue // it has ended
			}
			names, _ := f.Readdirnames(-1) // likewise
			_ = f.Close()
			for _, name := range names {
				sum += deleted(filepath.Join(dir, name), seen)
			}
		}
	}
	return sum
}

const deletedMark = " (deleted)" // proc_pid_fd(5)

func deleted(link string, seen map[inode]bool) int64 {
	if to, err := os.Readlink(link); err != nil || !strings.HasSuffix(to, deletedMark) {
		return 0
	}
	var st unix.Stat_t
	var where unix.Statfs_t
	if unix.Stat(link, &st) != nil || unix.Statfs(link, &where) != nil || st.Nlink > 0 {
		return 0
	}
	id := inode{st.Dev, st.Ino}
	if where.Type == unix.TMPFS_MAGIC || where.Type == unix.HUGETLBFS_MAGIC || seen[id] {
		return 0
	}
	seen[id] = true
	return st.Blocks * blockSize
}
