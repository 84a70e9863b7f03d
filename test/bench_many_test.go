package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkExec times a command that does nothing in a running bottle, beside
// Docker's.
func BenchmarkExec(b *testing.B) {
	if !*root {
		b.Skip(howto)
	}
	docker := startDocker(b)
	docker.run(b, "run", "-d", "--name", "bench-exec", imageName, "sleep", "3600")
	b.Cleanup(func() { docker.run(b, "rm", "--force", "bench-exec") })
	r := benchRig(b)
	name := r.background(b)
	var ours, dockers []time.Duration
	for b.Loop() {
		ours = append(ours, timed(b, func() error { return r.command(b, "exec", name, "--", "true").Run() }))
		dockers = append(dockers, timed(b, func() error { return docker.command("exec", "bench-exec", "true").Run() }))
	}
	report(b, "exec-ms", ours)
	report(b, "docker-exec-ms", dockers)
	b.ReportMetric(float64(median(ours))/float64(median(dockers)), "exec/docker")
	b.ReportMetric(0, "ns/op")
}

func benchRig(b *testing.B) *rig {
	b.Helper()
	r := &rig{World: shared.world, containerd: shared.machines[0], namespace: "bench"}
	r.importImage(b, shared.archive)
	return r
}

// background starts a bottle that idles, until the end of the benchmark.
func (r *rig) background(b *testing.B, flags ...string) string {
	b.Helper()
	out, err := r.command(b, append(bottle("-d"), append(flags, "--", "sleep", "3600")...)...).Output()
	if err != nil {
		b.Fatal(err)
	}
	name := strings.TrimSpace(string(out))
	b.Cleanup(func() {
		if err := r.command(b, "rm", "-f", name).Run(); err != nil {
			b.Error(err)
		}
	})
	return name
}

func timed(b *testing.B, f func() error) time.Duration {
	b.Helper()
	start := time.Now()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

func report(b *testing.B, name string, list []time.Duration) {
	b.Helper()
	b.ReportMetric(float64(median(list).Microseconds())/1000, name)
}

// BenchmarkMany is what the 1st, 16th and 64th bottle cost, one after the other,
// each as the median of five around it.
func BenchmarkMany(b *testing.B) {
	if !*root {
		b.Skip(howto)
	}
	r := benchRig(b)
	var at1, at16, at64 []time.Duration
	for b.Loop() {
		if len(at1) > 0 {
			continue // once is a minute, and enough for medians
		}
		var names []string
		for n := 1; n <= 66; n++ {
			start := time.Now()
			out, err := r.command(b, append(bottle("-d"), "--", "sleep", "3600")...).Output()
			took := time.Since(start)
			if err != nil {
				b.Fatal(err)
			}
			names = append(names, strings.TrimSpace(string(out)))
			switch {
			case n <= 5:
				at1 = append(at1, took)
			case n >= 14 && n <= 18:
				at16 = append(at16, took)
			case n >= 62:
				at64 = append(at64, took)
			}
		}
		if err := r.command(b, append([]string{"rm", "-f"}, names...)...).Run(); err != nil {
			b.Fatal(err)
		}
	}
	report(b, "1st-ms", at1)
	report(b, "16th-ms", at16)
	report(b, "64th-ms", at64)
	b.ReportMetric(float64(median(at64))/float64(median(at1)), "64th/1st")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMemory is what an idle bottle costs without its agent, in MiB of
// proportional set size: supervisor, shim, both carboy-inits, the engine.
func BenchmarkMemory(b *testing.B) {
	if !*root {
		b.Skip(howto)
	}
	for _, engine := range []string{"allowlist", "pipelock"} {
		b.Run(engine, func(b *testing.B) {
			r := benchRig(b)
			flags := []string{"--proxy", engine}
			if engine == "pipelock" {
				if shared.pipelock == "" {
					b.Skip("no pipelock in PATH or $PIPELOCK")
				}
				flags = append(flags, "--proxy-binary", shared.pipelock)
			}
			const bottles = 4 // shared pages count as they do with several
			var names []string
			for range bottles {
				names = append(names, r.background(b, flags...))
			}
			for b.Loop() {
			}
			total := 0
			for _, name := range names {
				total += overhead(b, r, name)
			}
			b.ReportMetric(float64(total)/bottles/1024, "MiB/bottle")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// overhead is in KiB.
func overhead(b *testing.B, r *rig, name string) (sum int) {
	b.Helper()
	out, err := r.command(b, "inspect", name).Output()
	if err != nil {
		b.Fatal(err)
	}
	instance := regexp.MustCompile(`"instance": "([a-z2-7]{10})"`).FindSubmatch(out)
	owner := regexp.MustCompile(`"owner": \{\s*"pid": (\d+)`).FindSubmatch(out)
	if instance == nil || owner == nil {
		b.Fatalf("inspect says %s", out)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		dir := filepath.Join("/proc", e.Name())
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || strings.HasPrefix(string(line), "sleep") {
			continue
		}
		group, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if e.Name() == string(owner[1]) || strings.Contains(string(line), string(instance[1])) || strings.Contains(string(group), string(instance[1])) {
			sum += pss(b, dir)
		}
	}
	return sum
}

func pss(b *testing.B, dir string) int {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal(fmt.Errorf("no Pss in %s", dir))
	return 0
}
