// Package skill reads skills: directories with a SKILL.md that tell an agent
// how to do something.
package skill

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Skill is a directory as an agent gets it.
type Skill struct {
	Name  string
	Files []File
}

// File is a regular file of a skill. Path is relative.
type File struct {
	Path       string
	Executable bool
	Data       []byte
}

// Bounds of one skill: a file has to fit a frame to carboy-init.
const (
	mostFiles   = 512
	longestFile = 2 << 20
	longestAll  = 32 << 20
)

// Name is what the directory of a skill can be called.
var Name = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)

// CheckName refuses what is no plain name of a directory.
func CheckName(s string) error {
	if !Name.MatchString(s) {
		return fmt.Errorf("skill %q: use letters, digits, '.', '_' and '-', at most 64: %w", s, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Read reads the skill whose directory is dir. Links that lead out of it,
// devices and the like are errors of class errdefs.ErrInvalidArgument.
func Read(dir *os.Root, skill string) (Skill, error) {
	s := Skill{Name: skill}
	total := 0
	err := fs.WalkDir(dir.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := read(dir, path)
		if err != nil {
			return err
		}
		s.Files = append(s.Files, f)
		if total += len(f.Data); total > longestAll || len(s.Files) > mostFiles {
			return fmt.Errorf("more than %d files or %d MiB", mostFiles, longestAll>>20)
		}
		return nil
	})
	if err == nil && !s.has("SKILL.md") {
		err = errors.New("there is no SKILL.md in it")
	}
	if err != nil {
		return Skill{}, fmt.Errorf("skill %s: %w: %w", skill, err, errdefs.ErrInvalidArgument)
	}
	return s, nil
}

func (s Skill) has(path string) bool {
	for _, f := range s.Files {
		if f.Path == path {
			return true
		}
	}
	return false
}

// read follows links that stay within the skill, and never waits.
func read(dir *os.Root, path string) (_ File, err error) {
	f, err := dir.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return File{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	if !st.Mode().IsRegular() || st.Size() > longestFile {
		return File{}, fmt.Errorf("%q is not a regular file of at most %d MiB", path, longestFile>>20)
	}
	data, err := io.ReadAll(io.LimitReader(f, longestFile))
	return File{Path: path, Executable: st.Mode()&0o111 != 0, Data: data}, err
}
