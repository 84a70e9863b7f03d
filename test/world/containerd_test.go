package world

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
)

func shell(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// TestContainerd runs the probe in a container of each containerd by the plain
// client.
func TestContainerd(t *testing.T) {
	if !*root {
		t.Skip(howto)
	}
	versions, err := Versions()
	if err != nil {
		t.Fatal(err)
	}
	probe, err := BuildProbe(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image.tar")
	if err := (Image{Name: "carboy.test/probe:1", Files: map[string][]byte{"/usr/bin/probe": binary}}).Write(image); err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		t.Run(v.Name, func(t *testing.T) { testContainerd(t, v, image) })
	}
}

func testContainerd(t *testing.T, v Version, image string) {
	w := newWorld(t)
	ctx := within(t, time.Minute)
	c, err := w.Containerd(ctx, v)
	if err != nil {
		t.Fatal(err)
	}
	ns := namespaces.WithNamespace(ctx, "world-test")
	name, err := c.Import(ns, image)
	if err != nil {
		t.Fatal(err)
	}
	if name != "carboy.test/probe:1" {
		t.Errorf("imported %s", name)
	}
	for _, runtime := range []string{"runc", "runsc"} {
		out := runOnce(ns, t, c, name, runtime, "/usr/bin/probe", "caps")
		if got := parseProbe(t, out); len(got) != 1 || !got[0].OK || got[0].Value.(map[string]any)["Uid"] != "1000" {
			t.Errorf("%s: probe said %q", runtime, out)
		}
	}
	before, err := w.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	remove := start(ns, t, c, name)
	during, err := w.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	diff := Diff(before, during)
	for _, want := range []string{"container sleeper", "task sleeper", "snapshot Active", "containerd-shim", "/world-test/sleeper", "/sys/fs/cgroup/", "mounts:"} {
		if !strings.Contains(diff, want) {
			t.Errorf("the difference while a container runs lacks %q:\n%s", want, diff)
		}
	}
	if err := c.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	remove()
	if diff, err := w.WaitClean(ctx, before); diff != "" || err != nil {
		t.Errorf("after the container: %v\n%s", err, diff)
	}
	testPause(ns, t, c)
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}

func testPause(ctx context.Context, t *testing.T, c *Containerd) {
	if err := c.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := c.ping(short); err == nil {
		t.Error("a paused containerd answers")
	}
	if err := c.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := c.ping(ctx); err != nil {
		t.Error(err)
	}
}

// newTask creates a task. What it returns last removes it all; with an option
// that kills when it still runs: under runsc the kill of an ended one fails.
func newTask(ctx context.Context, t *testing.T, c *Containerd, image, runtime string, io cio.Creator, args ...string) (containerd.Task, func(...containerd.ProcessDeleteOpts)) {
	t.Helper()
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	img, err := client.GetImage(ctx, image)
	if err != nil {
		t.Fatal(err)
	}
	container, err := client.NewContainer(ctx, "sleeper", containerd.WithNewSnapshot("sleeper", img), withRuntime(t, runtime),
		containerd.WithNewSpec(oci.WithImageConfig(img), oci.WithProcessArgs(args...)))
	if err != nil {
		t.Fatal(err)
	}
	task, err := container.NewTask(ctx, io)
	if err != nil {
		t.Fatalf("%s: %v\n%s", runtime, err, c.LogTail())
	}
	return task, func(opts ...containerd.ProcessDeleteOpts) {
		if _, err := task.Delete(ctx, opts...); err != nil {
			t.Error(err)
		}
		if err := container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
			t.Error(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}

func runOnce(ctx context.Context, t *testing.T, c *Containerd, image, runtime string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	task, remove := newTask(ctx, t, c, image, runtime, cio.NewCreator(cio.WithStreams(nil, &out, &errs)), args...)
	defer remove()
	exit, err := task.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(ctx); err != nil {
		t.Fatal(err)
	}
	s := <-exit
	if s.ExitCode() != 0 || s.Error() != nil {
		t.Errorf("%s %v: exit %d, %v\n%s", runtime, args, s.ExitCode(), s.Error(), &errs)
	}
	task.IO().Wait()
	return out.String()
}

func start(ctx context.Context, t *testing.T, c *Containerd, image string) func() {
	t.Helper()
	task, remove := newTask(ctx, t, c, image, "runc", cio.NullIO, "sleep", "3600")
	if err := task.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return func() { remove(containerd.WithProcessKill) }
}
