package runtime

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// What a shim that was told to end may take before it is asked to, after that,
// and what containerd may take to clean up after it.
const (
	shimTime   = 2 * time.Second
	askedTime  = time.Second
	bundleTime = 5 * time.Second
)

// endStrayShims waits for the bottle's shim and ends one that stays: a client
// that is killed while containerd creates a task can leave a shim of which
// containerd knows nothing. When it returns containerd has done what it does
// after a shim's end, which makes files of the bottle once more.
func (h *Host) endStrayShims(ctx context.Context, r Record) error {
	var bundles []string
	for _, then := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{0, shimTime}, {unix.SIGTERM, askedTime}, {unix.SIGKILL, askedTime}} {
		left, err := signalShims(r, then.signal, &bundles)
		if err != nil {
			return err
		}
		for patience := time.Now().Add(then.wait); left > 0 && time.Now().Before(patience); {
			if err := pause(ctx); err != nil {
				return err
			}
			if left, err = signalShims(r, 0, &bundles); err != nil {
				return err
			}
		}
		if left == 0 {
			return errors.Join(awaitRemoved(ctx, bundles), h.removeShimSockets(r))
		}
	}
	return fmt.Errorf("shim of bottle %s does not end: %w", r.Name, errdefs.ErrUnavailable)
}

// signalShims signals the bottle's shims, says how many there are, and adds
// their working directories, which are their bundles.
func signalShims(r Record, s unix.Signal, bundles *[]string) (int, error) {
	shims, err := shimsOf(r)
	for _, pid := range shims {
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && !slices.Contains(*bundles, dir) {
			*bundles = append(*bundles, dir)
		}
	}
	if s != 0 {
		err = errors.Join(err, killAll(shims, s))
	}
	return len(shims), err
}

// awaitRemoved waits for containerd to remove directories. It need not: it may
// not run.
func awaitRemoved(ctx context.Context, dirs []string) error {
	for patience := time.Now().Add(bundleTime); time.Now().Before(patience); {
		dirs = slices.DeleteFunc(dirs, func(dir string) bool {
			_, err := os.Lstat(dir)
			return errors.Is(err, fs.ErrNotExist)
		})
		if len(dirs) == 0 {
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause is a moment between two looks at what nobody tells of.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(2 * time.Millisecond):
		return nil
	}
}

// shimSockets is where shims listen, whatever containerd's own directories are
// (containerd 1.6 to 2.4, pkg/shim, CreateSocketAddress).
const shimSockets = "/run/containerd/s"

// removeShimSockets removes what a shim leaves that was killed while containerd
// was not there to clean up after it.
func (h *Host) removeShimSockets(r Record) error {
	var errs []error
	for _, id := range []string{r.agentID(), r.proxyID()} {
		sum := sha256.Sum256([]byte(filepath.Join(h.Address, h.Namespace, id)))
		if err := os.Remove(filepath.Join(shimSockets, hex.EncodeToString(sum[:]))); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeWorkDirs removes what containerd forgets that finds no state of a task,
// after a reboot: it looks only for tasks of the namespaces of which it has some
// (containerd 1.6 to 2.4, cleanupWorkDirs of the runtime plugin).
func (h *Host) removeWorkDirs(ctx context.Context, r Record) error {
	boot, err := bootID()
	if err != nil || r.Owner.Boot == boot {
		return err
	}
	content, err := h.Images.Root(ctx)
	if err != nil {
		return err
	}
	tasks := filepath.Join(filepath.Dir(content), "io.containerd.runtime.v2.task", h.Namespace)
	return errors.Join(os.RemoveAll(filepath.Join(tasks, r.agentID())), os.RemoveAll(filepath.Join(tasks, r.proxyID())))
}

// shimsOf finds shims by the container id on their command line, which for a
// grouped shim is that of its first container.
func shimsOf(r Record) ([]int, error) {
	return findProcesses(func(args [][]byte) bool {
		if !bytes.HasPrefix([]byte(filepath.Base(string(args[0]))), []byte("containerd-shim")) {
			return false
		}
		i := slices.IndexFunc(args, func(a []byte) bool { return string(a) == "-id" })
		return i > 0 && i+1 < len(args) && (string(args[i+1]) == r.agentID() || string(args[i+1]) == r.proxyID())
	})
}

func findProcesses(match func(args [][]byte) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && len(line) > 0 && match(bytes.Split(line, []byte{0})) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func killAll(pids []int, s unix.Signal) error {
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, s); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeCgroup ends what is left in a cgroup and removes it from every
// hierarchy. The cgroups module would do the same, and link D-Bus and an eBPF
// loader into the command line.
func removeCgroup(group string) error {
	var errs []error
	for _, top := range hierarchies() {
		if err := emptyCgroup(filepath.Join(top, group)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func emptyCgroup(dir string) error {
	for range 100 {
		err := os.Remove(dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		var pids []int
		for _, text := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(text); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		if err := killAll(pids, unix.SIGKILL); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond) // until the killed have left
	}
	return &fs.PathError{Op: "remove", Path: dir, Err: unix.EBUSY}
}
