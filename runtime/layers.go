package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// layers are the directories that a snapshot is made of.
type layers struct {
	upper  string   // empty where it cannot be written
	lowers []string // topmost first
}

func layersOf(mounts []mount.Mount) (l layers, err error) {
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		if slices.Contains(mounts[0].Options, "ro") {
			return layers{lowers: []string{mounts[0].Source}}, nil
		}
		return layers{upper: mounts[0].Source}, nil
	}
	if len(mounts) != 1 || mounts[0].Type != "overlay" {
		return l, fmt.Errorf("workspaces need the overlayfs snapshotter, see --snapshotter: %w", errdefs.ErrFailedPrecondition)
	}
	for _, o := range mounts[0].Options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			l.upper = dir
		}
		if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
			l.lowers = strings.Split(dirs, ":")
		}
	}
	return l, nil
}

// mountOptions are added for what containers and projects chose. A host that
// crashes may lose what was written to a volatile one last; without it every
// end of a bottle would wait until the host's disk has written all there is.
var mountOptions = []string{"nosuid", "nodev"}

var overlayOptions = []string{"redirect_dir=off", "metacopy=off"}

// mountSnapshot mounts what a snapshotter gave, once.
func mountSnapshot(mounts []mount.Mount, target string) error {
	mounts = slices.Clone(mounts)
	for i := range mounts {
		mounts[i].Options = slices.Concat(mounts[i].Options, mountOptions)
		if mounts[i].Type == "overlay" {
			mounts[i].Options = append(mounts[i].Options, overlayOptions...)
		}
	}
	err := mount.All(withOption(mounts, "volatile"), target)
	if errors.Is(err, unix.EINVAL) { // before Linux 5.10
		err = mount.All(mounts, target)
	}
	return err
}

func withOption(mounts []mount.Mount, option string) []mount.Mount {
	mounts = slices.Clone(mounts)
	for i := range mounts {
		if mounts[i].Type == "overlay" {
			mounts[i].Options = append(slices.Clone(mounts[i].Options), option)
		}
	}
	return mounts
}

// openLayers opens directories as the one that they make together, topmost
// first, for reading. The mount that it takes for several is in a mount
// namespace of its own, which ends with its thread: nothing is left when carboy
// is killed.
func openLayers(dirs []string) (*os.File, error) {
	if len(dirs) == 1 {
		return os.OpenFile(dirs[0], os.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	var f *os.File
	var err error
	onThread(func() { f, err = mountPrivately(dirs) })
	if err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	return f, nil
}

// onThread runs f on a thread that ends with it. That is never the main thread:
// it cannot end, and what it sees is what /proc/self shows.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked after f: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			onThread(f) // on another, as this one is taken
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

func mountPrivately(dirs []string) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, err
	}
	at := dirs[0]
	names, err := shorten(dirs)
	if err != nil {
		return nil, err
	}
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	options := "redirect_dir=off,metacopy=off,lowerdir=" + strings.Join(names, ":")
	if len(options) >= os.Getpagesize() {
		return nil, fmt.Errorf("%d layers are more than the kernel takes: %w", len(dirs), errdefs.ErrFailedPrecondition)
	}
	if err := unix.Mount("overlay", at, "overlay", flags, options); err != nil {
		return nil, err
	}
	return os.OpenFile(at, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

// shorten makes paths relative to what all have in common, and goes there: the
// kernel takes one page of options. The thread has a working directory of its
// own, as it has mounts of its own.
func shorten(dirs []string) ([]string, error) {
	common := filepath.Dir(dirs[0])
	for _, dir := range dirs {
		for !strings.HasPrefix(dir, strings.TrimSuffix(common, "/")+"/") {
			common = filepath.Dir(common)
		}
	}
	names := make([]string, len(dirs))
	for i, dir := range dirs {
		names[i] = strings.TrimPrefix(dir[len(common):], "/")
	}
	return names, unix.Chdir(common)
}

// snapshotLayers are those of a snapshot that is there to be written.
func (h *Host) snapshotLayers(ctx context.Context, key string) (layers, error) {
	mounts, err := h.Client.SnapshotService(h.Snapshotter).Mounts(ctx, key)
	if err != nil {
		return layers{}, fmt.Errorf("snapshot %s: %w", key, err)
	}
	return layersOf(mounts)
}
