package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/kernelversion"
	"github.com/moby/buildkit/snapshot"
	"golang.org/x/sys/unix"
)

// unsynced mounts the snapshots that steps write to so that the end of a step
// does not wait for the disk (overlayfs.rst, "Volatile mount"). Once is enough:
// before an image is named, and before the build ends. A cache that a crash of
// the host leaves behind before that is not used: see prepareRoot.
type unsynced struct {
	snapshot.Snapshotter
	before func() error // once, before the first such mount

	mu    sync.Mutex
	wrote string // an upper directory that was written to since the last sync
}

// unsyncedIfKnown leaves a snapshotter as it is where the kernel has no such
// mounts.
func unsyncedIfKnown(s snapshot.Snapshotter, before func() error) (*unsynced, snapshot.Snapshotter) {
	u := &unsynced{Snapshotter: s, before: sync.OnceValue(before)}
	if known, err := kernelversion.GreaterEqualThan(kernelversion.KernelVersion{Kernel: 5, Major: 10}); err != nil || !known {
		return u, s
	}
	return u, u
}

// Mounts leaves out what containerd extracts to: it mounts that itself.
func (u *unsynced) Mounts(ctx context.Context, key string) (snapshot.Mountable, error) {
	m, err := u.Snapshotter.Mounts(ctx, key)
	if err != nil || strings.HasPrefix(key, extraction) {
		return m, err
	}
	return unsyncedMount{m, u}, nil
}

type unsyncedMount struct {
	snapshot.Mountable
	of *unsynced
}

func (m unsyncedMount) Mount() ([]mount.Mount, func() error, error) {
	mounts, release, err := m.Mountable.Mount()
	upper, work := option(mounts, "upperdir="), option(mounts, "workdir=")
	if err != nil || upper == "" || work == "" {
		return mounts, release, err
	}
	// The kernel marks what was mounted so, and mounts it again without the mark only.
	mark := filepath.Join(work, "work", "incompat")
	if err := errors.Join(m.of.before(), os.RemoveAll(mark)); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	mounts = slices.Clone(mounts)
	mounts[0].Options = append(slices.Clone(mounts[0].Options), "volatile")
	return mounts, func() error {
		m.of.mu.Lock()
		m.of.wrote = upper
		m.of.mu.Unlock()
		return errors.Join(release(), os.RemoveAll(mark))
	}, nil
}

// option is empty for what is not one overlay.
func option(mounts []mount.Mount, name string) string {
	if len(mounts) != 1 || mounts[0].Type != "overlay" {
		return ""
	}
	for _, o := range mounts[0].Options {
		if value, ok := strings.CutPrefix(o, name); ok {
			return value
		}
	}
	return ""
}

// sync writes to the disk what steps have written.
func (u *unsynced) sync() error {
	u.mu.Lock()
	wrote := u.wrote
	u.wrote = ""
	u.mu.Unlock()
	if wrote == "" {
		return nil
	}
	// The snapshot itself may be gone by now, its file system is not.
	dir, err := os.Open(filepath.Dir(filepath.Dir(filepath.Dir(wrote))))
	if err == nil {
		err = errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
	}
	if err != nil {
		return fmt.Errorf("write the build's files to the disk: %w", err)
	}
	return nil
}
