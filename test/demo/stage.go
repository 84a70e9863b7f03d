package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/namespaces"

	"carboy/test/world"
)

const (
	image     = "demo.test/agent:latest"
	namespace = "demo"
	agentDir  = "demo" // in the image
)

// stage is the private host with all that the demo needs.
type stage struct {
	*world.World
	containerd *world.Containerd
	version    string // of containerd
	carboy     string
	dir        string // of the agent's files
	binary     string // of pipelock, empty for the allowlist engine
}

// prepare sets the stage. The caller closes it.
func prepare(ctx context.Context) (_ *stage, err error) {
	s := &stage{}
	if s.carboy, err = besideUs(filepath.Join("bin", "carboy")); err != nil {
		return nil, err
	}
	if s.binary, err = pipelock(); err != nil {
		return nil, err
	}
	if s.World, err = world.New(ctx, world.Config{Names: names()}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.startContainerd(ctx); err != nil {
		return nil, err
	}
	if err := s.makeAgent(ctx); err != nil {
		return nil, fmt.Errorf("make the agent: %w", err)
	}
	return s, nil
}

// besideUs finds what `make` has put into the directory of this program.
func besideUs(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(self), name), nil
}

// pipelock is $PIPELOCK, or in PATH, or empty.
func pipelock() (string, error) {
	named := os.Getenv("PIPELOCK")
	path, err := exec.LookPath(cmp.Or(named, "pipelock"))
	if named == "" && errors.Is(err, exec.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find pipelock: %w", err)
	}
	return filepath.Abs(path)
}

func (s *stage) startContainerd(ctx context.Context) (err error) {
	v, err := world.Installed()
	if err != nil {
		return err
	}
	if s.containerd, err = s.Containerd(ctx, v); err != nil {
		return err
	}
	client, err := s.containerd.Client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	version, err := client.Version(ctx)
	s.version = version.Version
	return err
}

// makeAgent makes the agent's files, and the image that has them.
func (s *stage) makeAgent(ctx context.Context) (err error) {
	// Removed by the end of the private host.
	if s.dir, err = os.MkdirTemp("", "world-demo-"); err != nil {
		return err
	}
	probe, err := world.BuildProbe(ctx, s.dir)
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(probe)
	if err != nil {
		return err
	}
	files := map[string][]byte{"agent": []byte(script()), "ca.pem": s.CA}
	inImage := map[string][]byte{agentDir + "/probe": binary}
	for name, content := range files {
		inImage[agentDir+"/"+name] = content
		if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
			return err
		}
	}
	tar := filepath.Join(s.dir, "image.tar")
	if err := (world.Image{Name: image, Files: inImage}).Write(tar); err != nil {
		return err
	}
	_, err = s.containerd.Import(namespaces.WithNamespace(ctx, namespace), tar)
	return err
}

// fromHost runs the agent without a bottle: the same attempts, to prove that
// there is something to reach.
func (s *stage) fromHost(ctx context.Context) ([]outcome, error) {
	s.Reset()
	var stderr bytes.Buffer
	agent := exec.CommandContext(ctx, "busybox", "sh", filepath.Join(s.dir, "agent"))
	agent.Env = []string{"PATH=" + os.Getenv("PATH")} // no proxy of the caller's
	agent.Stderr = &stderr
	said, err := agent.Output()
	if err != nil {
		return nil, fmt.Errorf("agent on the host: %w\n%s", err, &stderr)
	}
	if err := s.Settle(ctx); err != nil {
		return nil, err
	}
	outcomes, _, err := judge(string(said), s.Arrivals(""))
	return outcomes, err
}
