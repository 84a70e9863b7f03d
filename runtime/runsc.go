package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"carboy/runtime/bottlespec"
)

// ChooseRuntime returns the path of runsc, or an empty one for runc. For auto
// note says why it is runc; for runsc an unusable runsc is an error.
func (h *Host) ChooseRuntime(ctx context.Context, want string) (runsc, note string, err error) {
	if want == "runc" {
		return "", "", nil
	}
	path, err := exec.LookPath("runsc")
	if err == nil {
		err = h.probeRunsc(ctx, path)
	}
	switch {
	case err == nil:
		return path, "", nil
	case want == "runsc":
		return "", "", fmt.Errorf("runtime runsc cannot be used on this host: %w: %w", err, errdefs.ErrFailedPrecondition)
	case errors.Is(err, exec.ErrNotFound):
		return "", "runsc is not installed", nil
	default:
		return "", fmt.Sprintf("runsc cannot be used: %v", err), nil
	}
}

const probeTime = 20 * time.Second

// probeRunsc really starts a sandbox, once per binary: success is remembered
// in the state directory, which does not survive a reboot.
func (h *Host) probeRunsc(ctx context.Context, path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	mark := filepath.Join(h.StateDir, "probe", fmt.Sprintf("runsc-%d-%d-%d", sys.Dev, sys.Ino, st.ModTime().UnixNano()))
	if _, err := os.Stat(mark); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(mark), 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if err := h.startSandbox(ctx, path); err != nil {
		return err
	}
	return os.WriteFile(mark, nil, 0o600)
}

// startSandbox runs carboy-init, which ends at once, alone in an empty root.
func (h *Host) startSandbox(ctx context.Context, runsc string) (err error) {
	bundle, err := os.MkdirTemp(h.StateDir, "probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bundle)) }()
	if err := os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755); err != nil { //nolint:gosec // a container's root
		return err
	}
	config, err := json.Marshal(probeSpec(h.initPath()))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		return err
	}
	id := filepath.Base(bundle)
	cmd := exec.CommandContext(ctx, runsc, "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, id) //nolint:gosec // runsc from root's PATH
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("a sandbox does not start: %w: %s", err, printable(strings.TrimSpace(string(lastLine(out)))))
	}
	return nil
}

func probeSpec(init string) specs.Spec {
	return specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{bottlespec.InitPath, "probe"}, Cwd: "/"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: bottlespec.InitPath, Type: "bind", Source: init, Options: []string{"bind", "ro"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}}},
	}
}

func lastLine(out []byte) []byte {
	out = bytes.TrimSpace(out)
	return out[bytes.LastIndexByte(out, '\n')+1:]
}
