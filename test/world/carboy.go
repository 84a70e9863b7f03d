package world

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Build builds carboy and its helpers as installed below dir, a PREFIX: bin/carboy
// and libexec/carboy. It returns the path of carboy.
func Build(ctx context.Context, dir string) (string, error) {
	bin, libexec := filepath.Join(dir, "bin"), filepath.Join(dir, "libexec", "carboy")
	for path, main := range map[string]string{
		filepath.Join(bin, "carboy"):              "./cmd/carboy",
		filepath.Join(libexec, "carboy-init"):     "./cmd/carboy-init",
		filepath.Join(libexec, "carboy-egress"):   "./cmd/carboy-egress",
		filepath.Join(libexec, "carboy-buildkit"): "./cmd/carboy-buildkit",
	} {
		if err := goBuild(ctx, path, main); err != nil {
			return "", err
		}
	}
	root, err := repository()
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(dir, "share", "carboy"), os.DirFS(filepath.Join(root, "cmd/carboy/cmd/shipped"))); err != nil {
		return "", err
	}
	return filepath.Join(bin, "carboy"), nil
}

// BuildProbe builds the agent that tests run in bottles, and returns its path.
func BuildProbe(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "probe")
	return path, goBuild(ctx, path, "./test/world/probe")
}

func goBuild(ctx context.Context, path, main string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, goTool(), "build", "-trimpath", "-o", path, main)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", main, err, out)
	}
	return nil
}

// goTool is looked for where sudo's PATH does not lead, after $GO, the
// Makefile's.
func goTool() string {
	if tool := os.Getenv("GO"); tool != "" {
		return tool
	}
	if path, err := exec.LookPath("go"); err == nil {
		return path
	}
	return "/usr/local/go/bin/go"
}

// repository is the first directory upwards that holds carboy's go.mod.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module carboy\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if dir == "/" {
			return "", errors.New("find carboy's go.mod: run this inside the repository")
		}
	}
}

// Carboy is a command line of carboy, as Build made it, against this containerd
// with its version's CNI plugins. Flags among args win over all of it. An empty
// namespace is carboy's default.
func (c *Containerd) Carboy(ctx context.Context, carboy, namespace string, args ...string) (*exec.Cmd, error) {
	if _, err := os.Stat(carboy); err != nil {
		return nil, fmt.Errorf("%w: run `make build`", err)
	}
	cmd := exec.CommandContext(ctx, carboy, args...)
	cmd.Env = append(c.environ(), "CONTAINERD_ADDRESS="+c.Address, "CONTAINERD_NAMESPACE="+namespace, "CARBOY_CNI_BIN_DIR="+c.Version.PluginDir)
	return cmd, nil
}

// environ is this process's, with the PATH that leads to the pieces of this
// version, and without what sudo said about its caller.
func (c *Containerd) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "PATH" || name == "NOTIFY_SOCKET" || strings.HasPrefix(name, "SUDO_") ||
			strings.HasPrefix(name, "CARBOY_") && name != depthVar || strings.HasPrefix(name, "CONTAINERD_")
	})
	return append(env, "PATH="+c.path)
}
