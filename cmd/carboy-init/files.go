package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"carboy/runtime/initproto"
)

// writeFile puts a file below root. The image is hostile: links that lead out
// are refused, and whatever stands at the path, a FIFO or a device included,
// is replaced and never opened.
func writeFile(rootDir string, f initproto.File) error {
	name := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
	if name == "" {
		return errors.New("no file name")
	}
	who, err := lookupUser(rootDir, f.Owner)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(rootDir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace: %w", err)
	}
	return create(root, name, f, who)
}

func create(root *os.Root, name string, f initproto.File, who identity) (err error) {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Chown(int(who.uid), int(who.gid)); err != nil {
		return err
	}
	if err := file.Chmod(fs.FileMode(f.Mode) & fs.ModePerm); err != nil {
		return err
	}
	_, err = file.Write(f.Data)
	return err
}
