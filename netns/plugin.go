package netns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"carboy/netns/flock"
)

// PluginDirs are where distributions and others install CNI plugins.
func PluginDirs() []string {
	return []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}
}

// FindPlugins returns the first directory that holds both plugins.
func FindPlugins(dirs []string) (string, error) {
	var lacks []string
	for _, dir := range dirs {
		var missing []string
		for _, p := range []string{"ptp", "host-local"} {
			st, err := os.Stat(filepath.Join(dir, p))
			if err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
				missing = append(missing, p)
			}
		}
		if len(missing) == 0 {
			return dir, nil
		}
		lacks = append(lacks, dir+" has no "+strings.Join(missing, " and no "))
	}
	return "", fmt.Errorf("CNI plugins ptp and host-local: %s: install them (apt install containernetworking-plugins) or name their directory with --cni-bin-dir: %w",
		strings.Join(lacks, "; "), errdefs.ErrFailedPrecondition)
}

// pluginTime bounds what Detach waits for plugins: one that hangs must not hold
// up the rest.
const pluginTime = 20 * time.Second

// runner runs CNI plugins for libcni. A plugin inherits the bottle's mark, and
// so does what it runs itself, such as host-local: while one of them lives the
// mark stays locked, even when the process that started them was killed. A
// reservation that comes after DEL would otherwise be lost for good.
type runner struct {
	invoke.RawExec
	version.PluginDecoder
	mark *os.File // nil: nobody has to wait
}

// ExecPlugin runs one plugin, on a thread that lives as long: the plugin dies
// with it.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, path)
	c.Env, c.Stdin, c.Stdout, c.Stderr = environ, bytes.NewReader(stdin), &stdout, &stderr
	if r.mark != nil {
		c.ExtraFiles = []*os.File{r.mark}
	}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // and what it started
	c.WaitDelay = time.Second
	if err := c.Run(); err != nil {
		return nil, errors.Join(pluginError(err, stdout.Bytes(), stderr.String()), context.Cause(ctx))
	}
	return stdout.Bytes(), nil
}

// pluginError is what a plugin has to say about its failure; libcni adds the
// plugin's name.
func pluginError(err error, stdout []byte, stderr string) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) == nil && said.Msg != "" {
		return &said
	}
	if text := strings.TrimSpace(string(stdout) + stderr); text != "" {
		return fmt.Errorf("%w: %q", err, text)
	}
	return err
}

func (r Record) markFile() string { return filepath.Join(r.dir(), "plugins") }

// takeMark makes the file that plugins hold and locks it. Closing it leaves the
// lock to plugins that still run.
func (r Record) takeMark(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(r.dir(), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(r.markFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock.Lock(ctx, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// markTime is what plugins of a bottle that has ended may still take.
const markTime = 3 * time.Second

// awaitPlugins returns when none of the bottle's plugins runs any more. Those
// that hang are killed: what they were doing has no purpose now.
func (r Record) awaitPlugins(ctx context.Context) error {
	f, err := os.Open(r.markFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	patience, cancel := context.WithTimeout(ctx, markTime)
	defer cancel()
	if flock.Lock(patience, f) == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, pluginTime)
	defer stop()
	if err := errors.Join(killHolders(f), flock.Lock(ctx, f)); err != nil {
		return fmt.Errorf("end the bottle's CNI plugins: %w", err)
	}
	return nil
}

// killHolders kills the other processes that have a file open.
func killHolders(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range fds {
		open, err := os.Stat(path)
		if err != nil || !os.SameFile(st, open) {
			continue // most are no files, or have gone
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil || pid == os.Getpid() {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
