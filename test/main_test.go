// Package test runs carboy as a user does, on a private host with a real
// containerd, an Internet to reach and a neighbour. Each test compares the host
// with before.
package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"carboy/test/world"
)

var (
	root = flag.Bool("root", false, "run the tests that need root")
	soak = flag.Bool("soak", false, "with -root: kill and start far more often, for an hour or so")
)

const howto = "needs root and containerd: sudo make test, or sudo go test ./test -root"

// shared is what all host tests of a run use.
var shared struct {
	world    *world.World
	carboy   string // the binary
	plugins  string // pinned CNI plugins
	pipelock string // empty without one
	archive  string // of the usual image
	probe    string // the agent of the tests, for controls on the host
	machines []*world.Containerd
}

func TestMain(m *testing.M) {
	flag.Parse()
	if !*root {
		os.Exit(m.Run())
	}
	if err := world.Enter(); err != nil {
		fail(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := setUp(ctx); err != nil {
		fail(err)
	}
	status := m.Run()
	cancel()
	if err := errors.Join(shared.world.Close(), os.RemoveAll(filepath.Dir(shared.archive))); err != nil {
		fail(err)
	}
	os.Exit(status)
}

func fail(err error) {
	_, _ = fmt.Fprintln(os.Stderr, "FAIL: prepare the private host:", err)
	os.Exit(1)
}

func setUp(ctx context.Context) (err error) {
	if shared.world, err = world.New(ctx, world.Config{}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "world-carboy-")
	if err != nil {
		return err
	}
	// Users of containers run what is below.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if shared.carboy, err = world.Build(ctx, dir); err != nil {
		return err
	}
	if shared.plugins, err = world.PluginDir(); err != nil {
		return err
	}
	if shared.archive, err = usualImage(ctx, dir); err != nil {
		return err
	}
	if shared.pipelock, err = findPipelock(); err != nil {
		return err
	}
	versions, err := world.Versions()
	if err != nil {
		return err
	}
	for _, v := range versions {
		c, err := shared.world.Containerd(ctx, v)
		if err != nil {
			return err
		}
		shared.machines = append(shared.machines, c)
	}
	return nil
}

// usualImage has the probe, and trusts the world's authority.
func usualImage(ctx context.Context, dir string) (file string, err error) {
	if shared.probe, err = world.BuildProbe(ctx, dir); err != nil {
		return "", err
	}
	probe, err := os.ReadFile(shared.probe)
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "image.tar")
	return file, world.Image{Name: imageName, Files: map[string][]byte{
		"bin/probe": probe, "etc/ca.pem": shared.world.CA, "etc/ssl/certs/ca-certificates.crt": shared.world.CA,
	}}.Write(file)
}

// findPipelock looks where the operator would have put it: it is in no package
// registry, so tests of it are skipped without one, and say so.
func findPipelock() (string, error) {
	path := os.Getenv("PIPELOCK")
	if path == "" {
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if _, err := os.Stat(filepath.Join(dir, "pipelock")); err == nil {
				return filepath.Join(dir, "pipelock"), nil
			}
		}
		return "", nil
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("$PIPELOCK: %w", err)
	}
	return filepath.Abs(path)
}
