package cmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// manifestDirs are where manifests are, who wins first: the user's own, read
// with his rights, the operator's, what came with carboy, and those of a
// project, which is the current directory unless another is named.
func manifestDirs(who invoker.User, project string) []manifest.Dir {
	var dirs []manifest.Dir
	if own := who.ConfigDir(); own != "" {
		dirs = append(dirs, manifest.Dir{Path: own, ReadFile: who.ReadFile, List: listDir(who)})
	}
	caller := invoker.User{UID: os.Geteuid()}
	dirs = append(dirs, manifest.Dir{Path: manifest.OperatorDir, ReadFile: caller.ReadFile, List: listDir(caller)})
	if dir, err := installedDir("share"); err == nil {
		dirs = append(dirs, manifest.Dir{Path: dir, ReadFile: caller.ReadFile, List: listDir(caller)})
	}
	if project == "" {
		var err error
		if project, err = os.Getwd(); err != nil {
			return dirs // the directory has been removed, and has no manifests
		}
	}
	return append(dirs, projectFiles{who, project}.dir())
}

func listDir(who invoker.User) func(path string, limit int) ([]string, error) {
	return func(path string, limit int) ([]string, error) {
		dir, err := who.OpenDir(path)
		if err != nil {
			return nil, err
		}
		return readNames(dir, limit)
	}
}

// readNames closes the directory.
func readNames(dir *os.File, limit int) ([]string, error) {
	names, err := dir.Readdirnames(limit)
	if errors.Is(err, io.EOF) {
		err = nil // it is empty
	}
	return names, errors.Join(err, dir.Close())
}

// projectFiles are the manifests of a project, which may be anybody's: they are
// opened as who asks, and through no link, which could lead to what only he
// may read.
type projectFiles struct {
	who invoker.User
	top string
}

const projectDir = ".carboy"

func (p projectFiles) dir() manifest.Dir {
	return manifest.Dir{Path: filepath.Join(p.top, projectDir), Project: true, ReadFile: p.read, List: p.list}
}

func (p projectFiles) read(path string, limit int64) (_ []byte, err error) {
	f, err := p.open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: quotePath(path), Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", quotePath(path), limit)
	}
	return b, err
}

func (p projectFiles) list(path string, limit int) ([]string, error) {
	dir, err := p.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return readNames(dir, limit)
}

func (p projectFiles) open(path string, flags int) (*os.File, error) {
	rel, err := filepath.Rel(p.top, path)
	if err != nil {
		return nil, err
	}
	if flags&unix.O_DIRECTORY != 0 {
		rel += "/." // or a link would be no directory, which says less
	}
	top, err := p.who.OpenDir(p.top)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	fd := -1
	err = p.who.Do(func() (err error) {
		fd, err = beneath.Open(int(top.Fd()), rel, flags, 0)
		return err
	})
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("in a project no link is followed: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: quotePath(path), Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
