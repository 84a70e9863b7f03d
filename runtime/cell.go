package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
	"carboy/runtime/version"
)

// shim runs both containers of a bottle, whatever their runtime.
const shim = "io.containerd.runc.v2"

// cell is one of a bottle's two containers with its task, and the connection
// to carboy-init in it.
type cell struct {
	id     string
	task   containerd.Task
	io     *cio.DirectIO
	init   *initproto.Client
	stderr tail // carboy-init's own last words
}

// cellSpec is what a cell is made of. Parent is the snapshot of its image,
// empty for an empty root.
type cellSpec struct {
	id      string
	parent  string
	runtime string // path of runsc, or empty for runc
	spec    oci.SpecOpts
}

// newCell prepares the snapshot and creates container and task. Nothing of the
// container runs yet. What was made is found by the reaper, which looks when this
// has returned: so it is not cancelled either.
func (b *Bottle) newCell(ctx context.Context, s cellSpec) (*cell, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), taskTime)
	defer cancel()
	snapshots := b.host.Client.SnapshotService(b.host.Snapshotter)
	if _, err := snapshots.Prepare(ctx, s.id, s.parent); err != nil {
		return nil, fmt.Errorf("prepare snapshot: %w", err)
	}
	container, err := b.host.Client.NewContainer(ctx, s.id,
		containerd.WithContainerLabels(map[string]string{labelInstance: b.Instance, labelStateDir: b.StateDir}),
		// The runtime's state goes where the reaper removes it: runsc leaves a
		// mount there (null-netns) that nothing else ever takes away.
		containerd.WithRuntime(shim, &runcoptions.Options{BinaryName: s.runtime, Root: filepath.Join(b.dir(), "runtime")}),
		withSnapshot(b.host.Snapshotter, s.id),
		containerd.WithNewSpec(s.spec))
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	c := &cell{id: s.id}
	if err := c.newTask(ctx, container, b.dir()); err != nil {
		return nil, fmt.Errorf("create task: %w", err)
	}
	return c, nil
}

// taskTime is how long the creation of a task may take.
const taskTime = 30 * time.Second

// newTask is not cancelled: a client that goes away while a task is created can
// leave a shim that containerd forgets.
func (c *cell) newTask(ctx context.Context, container containerd.Container, dir string) (err error) {
	ctx = context.WithoutCancel(ctx)
	bounded, cancel := context.WithTimeoutCause(ctx, taskTime, fmt.Errorf("containerd did not create it within %v", taskTime))
	defer cancel()
	if c.task, err = container.NewTask(bounded, c.fifos(ctx, dir)); err != nil && bounded.Err() != nil {
		err = errors.Join(context.Cause(bounded), err)
	}
	return err
}

func withSnapshot(snapshotter, key string) containerd.NewContainerOpts {
	return func(_ context.Context, _ *containerd.Client, c *containers.Container) error {
		c.Snapshotter, c.SnapshotKey = snapshotter, key
		return nil
	}
}

func (c *cell) fifos(ctx context.Context, dir string) cio.Creator {
	return func(string) (cio.IO, error) {
		name := func(stream string) string { return filepath.Join(dir, "io", c.id+"-"+stream) }
		set := cio.NewFIFOSet(cio.Config{Stdin: name("stdin"), Stdout: name("stdout"), Stderr: name("stderr")}, nil)
		direct, err := cio.NewDirectIO(ctx, set)
		c.io = direct
		return direct, err
	}
}

// start runs carboy-init and shakes hands with it.
func (c *cell) start(ctx context.Context) error {
	if err := c.task.Start(ctx); err != nil {
		return fmt.Errorf("start task: %w", err)
	}
	go func() { _, _ = io.Copy(&c.stderr, c.io.Stderr) }()
	stop := context.AfterFunc(ctx, func() { _, _ = c.io.Stdout.Close(), c.io.Stdin.Close() })
	defer stop()
	var err error
	if c.init, err = initproto.NewClient(c.io.Stdout, c.io.Stdin); err != nil {
		return errors.Join(fmt.Errorf("talk to carboy-init: %w%s", err, c.stderr.quoted()), context.Cause(ctx))
	}
	if err := version.Check("carboy-init", c.init.Build(), version.Build); err != nil {
		return err
	}
	// The shim holds a writing end of that FIFO too; only without it does
	// carboy-init see our death as the end of its input. Not before our own
	// end is open: the handshake proves that.
	if err := c.task.CloseIO(ctx, containerd.WithStdinCloser); err != nil {
		return fmt.Errorf("close the shim's end of stdin: %w", err)
	}
	return nil
}

// close lets go of the streams. carboy-init ends with them.
func (c *cell) close() {
	if c == nil || c.io == nil {
		return
	}
	c.io.Cancel()
	_ = c.io.Close() // FIFOs: nothing is buffered here
}

// remove kills and deletes a container that may be half made, or gone.
func (h *Host) removeCell(ctx context.Context, id string) error {
	container, err := h.Client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load container %s: %w", id, err)
	}
	if err := removeTask(ctx, container); err != nil {
		return err
	}
	if err := container.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	return nil
}

func removeTask(ctx context.Context, container containerd.Container) error {
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load task %s: %w", container.ID(), err)
	}
	if err := endTask(ctx, task); err != nil {
		return fmt.Errorf("end task %s: %w", container.ID(), err)
	}
	if _, err := task.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task %s: %w", container.ID(), err)
	}
	return nil
}

// endTask kills carboy-init, and with it its pid namespace. The client's
// WithProcessKill signals every process instead, which runsc refuses for a
// sandbox that has ended by itself. Whether the signal was taken does not
// matter, for carboy-init may have ended without it: the task's end does.
func endTask(ctx context.Context, task containerd.Task) error {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	ended, err := task.Wait(ctx) // which tells of a lost task by the channel
	if err != nil {
		return err
	}
	killErr := task.Kill(ctx, unix.SIGKILL)
	for {
		select {
		case status := <-ended:
			// A task that goes away meanwhile is an error of the service, as it came.
			if err := errgrpc.ToNative(status.Error()); !errdefs.IsNotFound(err) {
				return err
			}
			return nil
		case <-time.After(thawTime):
			killErr = errors.Join(killErr, thaw(ctx, task))
		case <-ctx.Done():
			return errors.Join(killErr, fmt.Errorf("it has not ended within %v", killTime))
		}
	}
}

// thawTime is when a task that was killed is asked whether it is paused.
const thawTime = time.Second

// killTime is how long a task may take to go.
const killTime = 10 * time.Second

// tail keeps the last bytes that were written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append([]byte(nil), t.buf[over:]...)
	}
	return len(p), nil
}

// lines are the last n lines, made safe for a terminal.
func (t *tail) lines(n int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for line := range bytes.Lines(t.buf) {
		out = append(out, printable(strings.TrimRight(string(line), "\r\n")))
	}
	return out[max(0, len(out)-n):]
}

func (t *tail) quoted() string {
	if lines := t.lines(5); len(lines) > 0 {
		return ": " + strings.Join(lines, "; ")
	}
	return ""
}

// printable replaces what could drive a terminal: containers chose this text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x061c {
			return '\uFFFD'
		}
		return r
	}, s)
}
