package world

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
)

// Program is a native binary of an npm package, and where it goes.
type Program struct {
	Package string // the file that `make deps` fetched, without .tgz
	Member  string // in the package
	Path    string // in the image
}

// file is the package, once fetched.
func (p Program) file() (string, error) {
	cache, err := DepsDir()
	return filepath.Join(cache, p.Package+".tgz"), err
}

// Fetched says whether the package is there: where npm's registry cannot be
// reached it is not.
func (p Program) Fetched() (bool, error) {
	name, err := p.file()
	if err != nil {
		return false, err
	}
	_, err = os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// WriteProgramsLayer writes a layer of programs.
func WriteProgramsLayer(file string, programs []Program) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	for _, p := range programs {
		if err := p.copy(w); err != nil {
			return fmt.Errorf("program %s: %w", p.Package, err)
		}
	}
	return w.Close()
}

func (p Program) copy(w *tar.Writer) error {
	name, err := p.file()
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if err != nil {
			return fmt.Errorf("find %s: %w", p.Member, err)
		}
		if ok, err := path.Match(p.Member, h.Name); ok || err != nil {
			return errors.Join(err, add(w, p.Path, h.Size, r))
		}
	}
}

func add(w *tar.Writer, name string, size int64, data io.Reader) error {
	h := regular(name, nil, 0o755).Header
	h.Size = size
	if err := w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := io.Copy(w, data)
	return err
}
