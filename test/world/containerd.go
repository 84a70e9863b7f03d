package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
)

const startTime = 30 * time.Second

// Containerd is a containerd of the world's own.
type Containerd struct {
	Version Version
	Address string // its socket
	Root    string
	State   string

	path   string // PATH
	config string
	log    string

	mu   sync.Mutex
	cmd  *exec.Cmd // nil when it is not running
	done chan struct{}
	err  error // of Wait; valid after done
}

// minimalConfig is understood by 1.6 and 2.x. The opt plugin would make a
// directory in /opt; the others need what a test host does not have.
const minimalConfig = `version = 2
root = %q
state = %q
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.internal.v1.tracing"]
[grpc]
  address = %q
`

// Containerd starts a containerd and returns when it serves. The world's Close
// ends it, not what runs in its containers.
func (w *World) Containerd(ctx context.Context, v Version) (*Containerd, error) {
	w.mu.Lock()
	id := fmt.Sprintf("containerd-%s-%d", v.Name, len(w.containerds))
	w.mu.Unlock()
	state := filepath.Join("/run", id)
	c := &Containerd{
		Version: v, Root: filepath.Join(w.dir, id), State: state, Address: filepath.Join(state, "containerd.sock"), path: v.searchPath(),
		config: filepath.Join(w.dir, id+".toml"), log: filepath.Join(w.dir, id+".log"),
	}
	config := fmt.Sprintf(minimalConfig, c.Root, c.State, c.Address)
	if err := os.WriteFile(c.config, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if v.Disk > 0 {
		if err := mountSmall(c.Root, v.Disk); err != nil {
			return nil, err
		}
	}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.containerds = append(w.containerds, c)
	return c, nil
}

func mountSmall(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if err := unix.Mount("small", dir, "tmpfs", 0, fmt.Sprintf("mode=711,size=%d", size)); err != nil {
		return fmt.Errorf("small disk at %s: %w", dir, err)
	}
	return nil
}

// Start starts it after Stop or Kill and returns when it serves.
func (c *Containerd) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start containerd %s: %w", c.Version.Name, err), c.Kill())
		}
	}()
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := exec.Command(c.Version.Bin, "--config", c.config)
	cmd.Env = c.environ()
	cmd.Stdout, cmd.Stderr = log, log
	// The terminal's Ctrl-C is not meant for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	done := make(chan struct{})
	c.mu.Lock()
	if c.cmd != nil {
		c.mu.Unlock()
		return errors.New("it is running")
	}
	if err := cmd.Start(); err != nil {
		c.mu.Unlock()
		return err
	}
	c.cmd, c.done = cmd, done
	c.mu.Unlock()
	go func() {
		c.err = cmd.Wait()
		close(done)
	}()
	return c.await(ctx, done)
}

// await polls until containerd answers.
func (c *Containerd) await(ctx context.Context, done <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := c.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("it ended: %w\n%s", c.err, c.LogTail())
		default:
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("it does not serve: %w\n%s", err, c.LogTail())
		}
	}
}

func (c *Containerd) ping(ctx context.Context) error {
	if _, err := os.Stat(c.Address); err != nil {
		return err
	}
	client, err := c.Client()
	if err != nil {
		return err
	}
	_, err = client.Version(ctx)
	return errors.Join(err, client.Close())
}

// Client connects to it. The caller closes the client.
func (c *Containerd) Client() (*containerd.Client, error) {
	return containerd.New(c.Address, containerd.WithTimeout(5*time.Second))
}

// Stop ends it as a service manager would. Its containers live on.
func (c *Containerd) Stop() error { return c.end(syscall.SIGTERM) }

// Kill ends it at once. Its containers live on.
func (c *Containerd) Kill() error { return c.end(syscall.SIGKILL) }

// end is done when it is not running.
func (c *Containerd) end(s syscall.Signal) error {
	c.mu.Lock()
	cmd, done := c.cmd, c.done
	c.cmd = nil
	c.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end containerd %s: %w", c.Version.Name, err)
	}
	select {
	case <-done:
		return nil
	case <-time.After(startTime):
		err := cmd.Process.Kill()
		<-done
		return errors.Join(fmt.Errorf("containerd %s did not end by %s\n%s", c.Version.Name, s, c.LogTail()), err)
	}
}

// Restart is Kill and Start.
func (c *Containerd) Restart(ctx context.Context) error {
	if err := c.Kill(); err != nil {
		return err
	}
	return c.Start(ctx)
}

// Pause makes it hang until Resume, and returns when its last thread hangs.
func (c *Containerd) Pause(ctx context.Context) error {
	if err := c.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		stopped, err := stopped(c.Pid())
		if stopped || err != nil {
			return err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

func stopped(pid int) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	for _, t := range threads {
		if state, err := processState(t); err != nil || state != 'T' {
			return false, err
		}
	}
	return len(threads) > 0, nil
}

// Resume undoes Pause.
func (c *Containerd) Resume() error { return c.signal(syscall.SIGCONT) }

func (c *Containerd) signal(s syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return fmt.Errorf("containerd %s is not running", c.Version.Name)
	}
	return c.cmd.Process.Signal(s)
}

// Pid is its process, 0 when it is not running.
func (c *Containerd) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

// LogTail returns the end of its log.
func (c *Containerd) LogTail() string {
	b, err := os.ReadFile(c.log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err.Error()
	}
	const most = 4 << 10
	if len(b) > most {
		b = b[len(b)-most:]
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return string(b)
}
