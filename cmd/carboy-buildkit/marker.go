package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// marker is a file that is there while a controller works. Who holds the lock
// and finds one comes after a kill, or after a crash of the host if it is of
// another boot: then what the cache holds was perhaps never written to the disk.
type marker struct{ path, boot string }

func (m marker) look() (left, crashed bool, err error) {
	b, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	return err == nil, err == nil && string(b) != m.boot, err
}

func (m marker) set() error { return os.WriteFile(m.path, []byte(m.boot), 0o600) }

// sync has it on the disk before anything is that it stands for.
func (m marker) sync() error {
	for _, path := range []string{m.path, filepath.Dir(m.path)} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (m marker) remove() error { return os.RemoveAll(m.path) }
