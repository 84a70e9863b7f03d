package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// sweep removes what BuildKit itself does not after a kill: RUN goes on in its
// container, and its files, cgroups and temporary mounts stay. It needs the
// cache's lock.
func sweep(ctx context.Context, client *containerd.Client, root string) error {
	prefix := containerPrefix(root)
	if err := removeContainers(ctx, client, prefix); err != nil {
		return err
	}
	if err := endShims(ctx, prefix); err != nil {
		return err
	}
	// containerd may only now have done what the killed one asked it for.
	err := removeContainers(ctx, client, prefix)
	return errors.Join(err, removeCgroups(prefix), removeFIFOs(prefix), removeMounts(root), os.RemoveAll(filepath.Join(root, prunedFile)))
}

func removeContainers(ctx context.Context, client *containerd.Client, prefix string) error {
	containers, err := client.Containers(ctx, "id~=^"+prefix)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var errs []error
	for _, c := range containers {
		if err := removeContainer(ctx, c); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("container %s: %w", c.ID(), err))
		}
	}
	return errors.Join(errs...)
}

func removeContainer(ctx context.Context, c containerd.Container) error {
	task, err := c.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, containerd.WithProcessKill)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return c.Delete(ctx)
}

// endShims waits for the shims of containers that are gone, and kills one that
// stays: containerd may know nothing of a task that it was creating.
func endShims(ctx context.Context, prefix string) error {
	const patience = 2 * time.Second
	for _, s := range []unix.Signal{0, unix.SIGTERM, unix.SIGKILL} {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			left := shims(prefix)
			if len(left) == 0 {
				return nil
			}
			for _, pid := range left {
				_ = unix.Kill(pid, s) // the next look tells
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return errors.New("shims of killed builds do not end")
}

// shims are found by the container id on their command line.
func shims(prefix string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
	for _, path := range lines {
		b, err := os.ReadFile(path)
		name, _, _ := strings.Cut(string(b), "\x00")
		if err != nil || !strings.HasPrefix(filepath.Base(name), "containerd-shim") || !strings.Contains(string(b), "\x00-id\x00"+prefix) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// removeCgroups knows both versions: one hierarchy, or one below each
// controller.
func removeCgroups(prefix string) error {
	var errs []error
	for _, at := range []string{"", "*"} {
		dirs, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", at, cgroupPrefix+prefix+"*"))
		errs = append(errs, err)
		for _, dir := range dirs {
			errs = append(errs, removeCgroup(dir))
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	for range 100 {
		err := os.Remove(dir)
		if !errors.Is(err, unix.EBUSY) {
			return ignoreAbsent(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return ignoreAbsent(err)
		}
		for _, text := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(text); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL) // the next removal tells
			}
		}
		time.Sleep(5 * time.Millisecond) // until the killed have left
	}
	return &fs.PathError{Op: "remove", Path: dir, Err: unix.EBUSY}
}

// removeFIFOs removes what the client made for a container's output, in a
// directory of its own.
func removeFIFOs(prefix string) error {
	files, err := filepath.Glob(filepath.Join(defaults.DefaultFIFODir, "*", prefix+"*"))
	errs := []error{err}
	for _, f := range files {
		errs = append(errs, os.RemoveAll(filepath.Dir(f)))
	}
	return errors.Join(errs...)
}

func removeMounts(root string) error {
	if err := mount.UnmountRecursive(root, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(root, "tmp"))
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
