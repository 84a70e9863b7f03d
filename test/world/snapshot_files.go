package world

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// carboyKeeps is what the first bottle makes for all: locks are not safe to
// remove while others may wait for them.
var carboyKeeps = []string{"/run/carboy/claim.lock ----------", "/run/carboy/lock d---------"}

// files lists what carboy, CNI and containerd keep while bottles live. Empty
// directories count as carboy's only: containerd and runc keep theirs, one for
// each containerd namespace.
func (w *World) files(context.Context) ([]string, error) {
	lines, err := filesBelow("/run/carboy", true)
	if err != nil {
		return nil, err
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return slices.Contains(carboyKeeps, l) })
	for _, tree := range []string{"/run/netns", "/run/cni", "/run/runsc", "/run/runc", "/run/containerd", "/var/lib/cni"} {
		below, err := filesBelow(tree, false)
		if err != nil {
			return nil, err
		}
		lines = append(lines, below...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.containerds {
		for _, dir := range []string{c.Root, c.State} {
			bundles, err := filepath.Glob(filepath.Join(dir, "io.containerd.runtime.v2.task", "*", "*"))
			if err != nil {
				return nil, err
			}
			lines = append(lines, bundles...)
		}
	}
	temporary, err := temporaryFiles()
	return append(lines, temporary...), err
}

// temporaryFiles lists what is left directly in the temporary directories, less
// what the testing package, the go command and this package put there.
func temporaryFiles() ([]string, error) {
	entries, err := os.ReadDir(os.TempDir())
	var lines []string
	for _, e := range entries {
		if n := e.Name(); !hasAnyPrefix(n, "Test", "Benchmark", "Fuzz", "go-", "world-") {
			lines = append(lines, filepath.Join(os.TempDir(), n))
		}
	}
	return lines, err
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

func filesBelow(root string, dirs bool) ([]string, error) {
	var lines []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case path != root && (dirs || !e.IsDir()):
			lines = append(lines, path+" "+e.Type().String())
		}
		return nil
	})
	return lines, err
}
