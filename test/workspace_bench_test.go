package test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// BenchmarkWorkspace times the copy of 2,000 files and 50 MB into a bottle
// beside `docker build` with BuildKit of the same, in turns: the first copy, one
// of what has not changed, and one after a change of one file.
func BenchmarkWorkspace(b *testing.B) {
	if !*root {
		b.Skip(howto)
	}
	docker := startDocker(b)
	r := &rig{World: shared.world, containerd: shared.machines[0], namespace: "bench"}
	r.importImage(b, shared.archive)
	dir := b.TempDir()
	manyFiles(b, dir, 2000, 25000)
	dockerfile := filepath.Join(b.TempDir(), "Dockerfile")
	put(b, dockerfile, "FROM "+imageName+"\nCOPY . /workspace\n")
	build := func() time.Duration {
		start := time.Now()
		c := docker.command("build", "-q", "-t", "bench", "-f", dockerfile, dir)
		c.Env = append(c.Env, "DOCKER_BUILDKIT=1")
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("docker build: %v\n%s", err, out)
		}
		return time.Since(start)
	}
	const enough = 9 // for a median: a cold build takes seconds
	changes := 0
	change := func() {
		changes++
		put(b, filepath.Join(dir, "d007/f00777"), fmt.Sprint("change ", changes))
	}
	for _, tc := range []struct {
		name   string
		before func()
	}{
		{"cold", func() {
			r.prune(b)
			docker.run(b, "builder", "prune", "-af")
			docker.run(b, "image", "rm", "-f", "bench")
		}},
		{"unchanged", func() {}},
		{"changed", change},
	} {
		b.Run(tc.name, func(b *testing.B) {
			_, _ = r.timeWorkspace(b, dir), build()
			var carboys, dockers []time.Duration
			for b.Loop() {
				if len(carboys) == enough {
					continue
				}
				tc.before()
				carboys, dockers = append(carboys, r.timeWorkspace(b, dir)), append(dockers, build())
			}
			b.ReportMetric(float64(median(carboys).Microseconds())/1000, "copy-ms")
			b.ReportMetric(float64(median(dockers).Microseconds())/1000, "docker-ms")
			b.ReportMetric(float64(median(carboys))/float64(median(dockers)), "copy/docker")
			b.ReportMetric(0, "ns/op")
		})
	}
	r.prune(b)
}

// BenchmarkWorkspaceMany times the copy of one changed file of 50,000 beside a
// bare walk of them.
func BenchmarkWorkspaceMany(b *testing.B) {
	if !*root {
		b.Skip(howto)
	}
	r := &rig{World: shared.world, containerd: shared.machines[0], namespace: "bench"}
	r.importImage(b, shared.archive)
	dir := b.TempDir()
	manyFiles(b, dir, 50000, 100)
	r.timeWorkspace(b, dir)
	var carboys, walks []time.Duration
	changes := 0
	for b.Loop() {
		changes++
		put(b, filepath.Join(dir, "d123/f12345"), fmt.Sprint("change ", changes))
		carboys, walks = append(carboys, r.timeWorkspace(b, dir)), append(walks, walk(b, dir))
	}
	b.ReportMetric(float64(median(carboys).Microseconds())/1000, "copy-ms")
	b.ReportMetric(float64(median(walks).Microseconds())/1000, "walk-ms")
	b.ReportMetric(float64(median(carboys))/float64(median(walks)), "copy/walk")
	b.ReportMetric(0, "ns/op")
	r.prune(b)
}

// walk looks at each file, and at nothing in it.
func walk(b *testing.B, dir string) time.Duration {
	b.Helper()
	start := time.Now()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			_, err = e.Info()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// prune returns when the copies are gone from the disk as well: the next would
// pay for it.
func (r *rig) prune(b *testing.B) {
	b.Helper()
	if out, err := r.command(b, "workspace", "prune").CombinedOutput(); err != nil {
		b.Fatalf("prune: %v\n%s", err, out)
	}
	client, err := r.containerd.Client()
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(context.Background(), r.namespace)
	eventually(b, "no copy is left", func() bool {
		left := 0
		err := client.SnapshotService("overlayfs").Walk(ctx, func(context.Context, snapshots.Info) error {
			left++
			return nil
		}, `name~="^carboy-tree"`)
		return left == 0 && (err == nil || errdefs.IsNotFound(err))
	})
}

var workspaceStep = regexp.MustCompile(`([0-9.]+) ms +workspace\n`)

// timeWorkspace is how long the step of a bring-up took.
func (r *rig) timeWorkspace(b *testing.B, dir string) time.Duration {
	b.Helper()
	c := r.command(b, append(bottle("--timings", "--workspace", dir), "--", "true")...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Run(); err != nil {
		b.Fatalf("%v\n%s", err, stderr.String())
	}
	found := workspaceStep.FindStringSubmatch(stderr.String())
	if found == nil {
		b.Fatalf("no timing of the workspace:\n%s", stderr.String())
	}
	ms, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(ms * float64(time.Millisecond))
}
