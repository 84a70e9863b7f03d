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
	"slices"
	"strings"

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

// Bounds, sizes in bytes: a file has to fit a frame to carboy-init.
const (
	mostSkills  = 32  // of an agent
	mostEntries = 512 // of a skill
	longestFile = 2 << 20
	longest     = 32 << 20 // skill
	longestAll  = 64 << 20 // of an agent's
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

// CheckNames refuses more skills than an agent has, and one that is named twice.
func CheckNames(names []string) error {
	if len(names) > mostSkills {
		return fmt.Errorf("%d skills: an agent has at most %d: %w", len(names), mostSkills, errdefs.ErrInvalidArgument)
	}
	for i, s := range names {
		if err := CheckName(s); err != nil {
			return err
		}
		if slices.Contains(names[:i], s) {
			return fmt.Errorf("skill %q is named twice: %w", s, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Reader reads the skills of one agent, whose sizes count together.
type Reader struct {
	Links bool // follow those that stay within a skill, else refuse them all
	total int
}

// Read reads the skill whose directory is dir, and never more than fits. Links
// that are not followed, devices and the like are errors of class
// errdefs.ErrInvalidArgument.
func (r *Reader) Read(dir *os.Root, skill string) (Skill, error) {
	s := Skill{Name: skill}
	left, entries := min(longest, longestAll-r.total), 0
	err := fs.WalkDir(listing{dir}, ".", func(path string, d fs.DirEntry, err error) error {
		if entries++; err == nil && entries > mostEntries+1 { // and dir itself
			err = fmt.Errorf("more than %d files and directories", mostEntries)
		}
		if err != nil || d.IsDir() {
			return err
		}
		if d.Type() == fs.ModeSymlink && !r.Links {
			return fmt.Errorf("%q is a link: in a project none is followed", path)
		}
		f, err := read(dir, path, left)
		s.Files, left, r.total = append(s.Files, f), left-len(f.Data), r.total+len(f.Data)
		return err
	})
	if err == nil && !slices.ContainsFunc(s.Files, func(f File) bool { return f.Path == "SKILL.md" }) {
		err = errors.New("there is no SKILL.md in it")
	}
	if err != nil {
		return Skill{}, fmt.Errorf("skill %s: %w: %w", skill, err, errdefs.ErrInvalidArgument)
	}
	return s, nil
}

// listing lists no more of a directory than is too much.
type listing struct{ *os.Root }

func (l listing) Open(name string) (fs.File, error) {
	return l.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func (l listing) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := l.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(mostEntries + 1)
	if errors.Is(err, io.EOF) {
		err = nil // it is empty
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

// read never waits, and follows links that stay within the skill.
func read(dir *os.Root, path string, left int) (_ File, err error) {
	f, err := dir.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return File{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	if !st.Mode().IsRegular() {
		return File{}, fmt.Errorf("%q is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(min(longestFile, left))+1))
	switch {
	case err != nil:
		return File{}, err
	case len(data) > longestFile:
		return File{}, fmt.Errorf("%q is larger than %d MiB", path, longestFile>>20)
	case len(data) > left:
		return File{}, fmt.Errorf("it is larger than %d MiB, or an agent's skills are larger than %d MiB together", longest>>20, longestAll>>20)
	}
	return File{Path: path, Executable: st.Mode()&0o111 != 0, Data: data}, nil
}
