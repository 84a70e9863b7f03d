package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkBuild times `carboy build` beside `docker build` with BuildKit, for
// a context of 2,000 files and 50 MB, in turns: with an empty cache, with
// nothing changed, and with one file changed. The base image is there and
// unpacked.
func BenchmarkBuild(b *testing.B) {
	if !*root {
		b.Skip(howto)
	}
	engine := startDocker(b)
	r := &rig{World: shared.world, containerd: shared.machines[1], namespace: "bench-build"}
	r.importImage(b, shared.archive)
	b.Cleanup(func() { r.unbuild(b, builtName) })
	p := newBenchProject(b)
	ours := func() {
		r.mustRun(b, "build", "--quiet", "-t", builtName, p.dir)
	}
	theirs := func() {
		c := engine.command("build", "--quiet", "-t", "bench", p.dir)
		c.Env = append(c.Env, "DOCKER_BUILDKIT=1")
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("docker build: %v\n%s", err, out)
		}
	}
	ours()
	theirs()
	for _, bench := range []struct {
		name    string
		prepare func()
	}{
		{"unchanged", func() {}},
		{"changed", func() { p.change(b) }},
		{"cold", func() {
			r.unbuild(b, builtName)
			engine.run(b, "rmi", "bench")
			engine.run(b, "builder", "prune", "--all", "--force")
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var carboys, dockers []time.Duration
			for b.Loop() {
				bench.prepare()
				first, second := &carboys, &dockers
				runs := []func(){ours, theirs}
				if len(carboys)%2 == 1 { // who is second has the files in memory
					first, second = second, first
					runs[0], runs[1] = runs[1], runs[0]
				}
				*first = append(*first, timeBuild(runs[0]))
				*second = append(*second, timeBuild(runs[1]))
			}
			carboy, docker := median(carboys), median(dockers)
			b.ReportMetric(float64(carboy.Microseconds())/1000, "build-ms")
			b.ReportMetric(float64(docker.Microseconds())/1000, "docker-build-ms")
			b.ReportMetric(float64(carboy)/float64(docker), "build/docker")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// timeBuild has nothing left to write from before.
func timeBuild(f func()) time.Duration {
	unix.Sync()
	start := time.Now()
	f()
	return time.Since(start)
}

// benchProject is a directory whose files are half text, half noise.
type benchProject struct {
	dir     string
	changes int
}

func newBenchProject(b *testing.B) *benchProject {
	b.Helper()
	const dirs, files, size, noise = 40, 50, 26_000, 6_000
	text := strings.Repeat("func (b *Bottle) close() error { return b.lock.remove() }\n", size/57+1)
	p := &benchProject{dir: b.TempDir()}
	p.write(b, "Dockerfile", []byte("FROM "+imageName+"\nCOPY . /workspace\n"))
	for d := range dirs {
		for f := range files {
			content := []byte(text[:size])
			for i := range noise {
				content[i] = byte(rand.Uint32())
			}
			p.write(b, filepath.Join("src", fmt.Sprint("d", d), fmt.Sprint("f", f)), content)
		}
	}
	return p
}

func (p *benchProject) change(b *testing.B) {
	b.Helper()
	p.changes++
	p.write(b, "src/d1/f1", fmt.Append(nil, "change ", p.changes))
}

func (p *benchProject) write(b *testing.B, name string, content []byte) {
	b.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		b.Fatal(err)
	}
}
