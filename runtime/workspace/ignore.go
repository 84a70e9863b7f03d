package workspace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
)

// ignoreFiles name what is left out, the later over the earlier.
var ignoreFiles = []string{".dockerignore", ".carboyignore"}

const ignoreLimit = 1 << 20

// ignored matches paths of the tree; nil matches none.
type ignored struct {
	patterns *patternmatcher.PatternMatcher
}

// readIgnored has the rights of the thread.
func readIgnored(top *os.File) (*ignored, error) {
	var patterns []string
	for _, name := range ignoreFiles {
		more, err := readPatterns(top, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", name, err, errdefs.ErrInvalidArgument)
		}
		patterns = append(patterns, more...)
	}
	if len(patterns) == 0 {
		return nil, nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("patterns of %s and %s: %w: %w", ignoreFiles[0], ignoreFiles[1], err, errdefs.ErrInvalidArgument)
	}
	return &ignored{m}, nil
}

func readPatterns(top *os.File, name string) ([]string, error) {
	fd, err := beneath.Open(int(top.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > ignoreLimit {
		return nil, errors.Join(errors.New("not a regular file of at most 1 MiB"), err)
	}
	return ignorefile.ReadAll(io.LimitReader(f, ignoreLimit))
}

// matches says whether a path is left out. What a parent matched counts for
// what is in it.
func (i *ignored) matches(path string, parent patternmatcher.MatchInfo) (bool, patternmatcher.MatchInfo, error) {
	if i == nil {
		return false, parent, nil
	}
	out, info, err := i.patterns.MatchesUsingParentResults(path, parent)
	if err != nil {
		return false, info, fmt.Errorf("match %q: %w", path, err)
	}
	return out, info, nil
}

// enter says whether a directory that is left out may hold what is not.
func (i *ignored) enter() bool { return i.patterns.Exclusions() }

// prune drops directories that are left out and, after all, hold nothing that
// is not.
func prune(all []Directory, out map[string]bool) []Directory {
	empty := map[string]bool{}
	for i := len(all) - 1; i >= 0; i-- { // what is in a directory comes after it
		d := &all[i]
		d.Entries = slices.DeleteFunc(d.Entries, func(e Entry) bool { return e.isDir() && empty[join(d.Path, e.Name)] })
		empty[d.Path] = out[d.Path] && len(d.Entries) == 0
	}
	return slices.DeleteFunc(all, func(d Directory) bool { return empty[d.Path] })
}
