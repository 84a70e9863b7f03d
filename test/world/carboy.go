package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"carboy/runtime/initproto"
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

// BuildNext builds the command of a later carboy, which calls itself build
// "next" and speaks that version of the protocol.
func BuildNext(ctx context.Context, dir string, protocol int) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "runtime/initproto/frame.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	now := fmt.Appendf(nil, "const Version = %d\n", initproto.Version)
	if !bytes.Contains(text, now) {
		return "", fmt.Errorf("%s: no %q", source, now)
	}
	next := bytes.Replace(text, now, fmt.Appendf(nil, "const Version = %d\n", protocol), 1)
	frame, overlay := filepath.Join(dir, "frame.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{source: frame}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(frame, next, 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil { //nolint:gosec // below a directory of the test's
		return "", err
	}
	path := filepath.Join(dir, "bin", "carboy")
	return path, goBuild(ctx, path, "./cmd/carboy", "-overlay", overlay, "-ldflags", "-X carboy/runtime/version.Build=next")
}

// BuildProbe builds the agent that tests run in bottles, and returns its path.
func BuildProbe(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "probe")
	return path, goBuild(ctx, path, "./test/world/probe")
}

func goBuild(ctx context.Context, path, main string, flags ...string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	args := append([]string{"build", "-trimpath", "-o", path}, flags...)
	cmd := exec.CommandContext(ctx, goTool(), append(args, main)...)
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
