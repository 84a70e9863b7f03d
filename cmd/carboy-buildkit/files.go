package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"
)

// files are those of a directory that others may change meanwhile, an agent in
// its bottle for one: what is opened is in the directory, and is a file.
type files struct {
	fsutil.FS
	root *os.Root
	fail context.CancelCauseFunc
}

func newFiles(dir string, fail context.CancelCauseFunc) (fsutil.FS, error) {
	all, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return files{all, root, fail}, nil
}

// Open also fails the build: fsutil would send an empty file.
func (f files) Open(path string) (io.ReadCloser, error) {
	file, err := f.root.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		err = regular(file)
	}
	if err != nil {
		f.fail(fmt.Errorf("build context: %w", err))
		return nil, err
	}
	return file, nil
}

// regular closes what is not a regular file.
func regular(f *os.File) error {
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.Name())
	}
	if err != nil {
		_ = f.Close()
	}
	return err
}
