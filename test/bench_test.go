package test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"carboy/test/world"
)

// BenchmarkBringUp times from the command to the agent's first byte, and to the
// end of the command line after it, beside Docker's for the same: two networks,
// a proxy, an agent. Both use the same images, in turns.
func BenchmarkBringUp(b *testing.B) {
	if !*root {
		b.Skip(howto)
	}
	docker := startDocker(b)
	r := benchRig(b)
	for _, runtime := range []string{"runc", "runsc"} {
		b.Run(runtime, func(b *testing.B) {
			var ups, downs, dockerUps, dockerDowns []time.Duration
			for b.Loop() {
				up, down := timeCarboy(b, r, runtime)
				dockerUp, dockerDown := docker.time(b)
				ups, downs = append(ups, up), append(downs, down)
				dockerUps, dockerDowns = append(dockerUps, dockerUp), append(dockerDowns, dockerDown)
			}
			for name, list := range map[string][]time.Duration{
				"up-ms": ups, "down-ms": downs, "docker-up-ms": dockerUps, "docker-down-ms": dockerDowns,
			} {
				b.ReportMetric(float64(median(list).Microseconds())/1000, name)
			}
			b.ReportMetric(float64(median(ups))/float64(median(dockerUps)), "up/docker")
			b.ReportMetric(float64(median(downs))/float64(median(dockerDowns)), "down/docker")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkVersion is carboy's own start.
func BenchmarkVersion(b *testing.B) {
	if !*root {
		b.Skip(howto)
	}
	var all []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := exec.Command(shared.carboy, "version").Run(); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
	}
	b.ReportMetric(float64(median(all).Microseconds())/1000, "median-ms")
	b.ReportMetric(0, "ns/op")
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// timeCarboy returns the times to the agent's first byte, and from its end to
// carboy's.
func timeCarboy(b *testing.B, r *rig, runtime string) (up, down time.Duration) {
	b.Helper()
	c := r.command(b, append(bottle("--runtime", runtime), "--", "echo", "here")...)
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadByte(); err != nil {
		b.Fatal(err)
	}
	up = time.Since(start)
	start = time.Now()
	if err := c.Wait(); err != nil {
		b.Fatal(err)
	}
	return up, time.Since(start)
}

// docker is a Docker engine of the private host.
type docker struct{ cli, host string }

func startDocker(b *testing.B) docker {
	b.Helper()
	deps, err := world.DepsDir()
	if err != nil {
		b.Fatal(err)
	}
	tree := filepath.Join(deps, "docker")
	d := docker{cli: filepath.Join(tree, "usr/bin/docker"), host: "unix:///run/docker.sock"}
	dir := b.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	c := exec.Command(filepath.Join(tree, "usr/sbin/dockerd"), "--host", d.host, "--data-root", filepath.Join(dir, "data"), "--exec-root", "/run/docker",
		"--userland-proxy-path", filepath.Join(tree, "usr/sbin/docker-proxy"), "--init-path", filepath.Join(tree, "usr/bin/docker-init"))
	c.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		b.Fatalf("Docker's engine: %v: run `make bench`", err)
	}
	b.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	eventually(b, "dockerd serves", func() bool { return d.command("version").Run() == nil })
	d.run(b, "load", "-i", shared.archive)
	d.run(b, "network", "create", "warm") // the first one costs more
	d.run(b, "network", "rm", "warm")
	return d
}

func (d docker) command(args ...string) *exec.Cmd {
	c := exec.Command(d.cli, args...)
	c.Env = append(os.Environ(), "DOCKER_HOST="+d.host, "DOCKER_CONFIG=/nonexistent")
	return c
}

func (d docker) run(b *testing.B, args ...string) string {
	b.Helper()
	out, err := d.command(args...).CombinedOutput()
	if err != nil {
		b.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// time does what bot-bottle does: the proxy on both networks, the agent on the
// internal one. It does not wait for the proxy to be healthy.
func (d docker) time(b *testing.B) (up, down time.Duration) {
	b.Helper()
	start := time.Now()
	d.run(b, "network", "create", "--internal", "bench-internal")
	d.run(b, "network", "create", "bench-egress")
	d.run(b, "create", "--name", "bench-proxy", "--network", "bench-internal", imageName, "sleep", "3600")
	d.run(b, "network", "connect", "bench-egress", "bench-proxy")
	d.run(b, "start", "bench-proxy")
	agent := d.command("run", "--rm", "--name", "bench-agent", "--network", "bench-internal", imageName, "echo", "here")
	out, err := agent.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		b.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadByte(); err != nil {
		b.Fatal(err)
	}
	up = time.Since(start)
	start = time.Now()
	if err := agent.Wait(); err != nil {
		b.Fatal(err)
	}
	d.run(b, "rm", "--force", "bench-proxy")
	d.run(b, "network", "rm", "bench-internal", "bench-egress")
	return up, time.Since(start)
}
