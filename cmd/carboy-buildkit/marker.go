package main

import (
	"errors"
	"io/fs"
	"os"
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

// set is on the disk before anything is that the marker stands for.
func (m marker) set() error {
	f, err := os.OpenFile(m.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(m.boot)
	return errors.Join(err, f.Sync(), f.Close())
}

func (m marker) remove() error { return os.RemoveAll(m.path) }
