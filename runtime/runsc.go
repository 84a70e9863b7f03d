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
		err = h.probeRunsc(ctx, path, want == "runsc")
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

func (h *Host) probeDir() string    { return filepath.Join(h.StateDir, "probe") }
func (h *Host) probeBundle() string { return filepath.Join(h.probeDir(), "bundle") }

// probeRunsc really starts a sandbox, once per binary: what came of it is
// remembered in the state directory, which does not survive a reboot. With again
// a failure is not believed.
func (h *Host) probeRunsc(ctx context.Context, path string, again bool) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	own, err := waitLock(ctx, filepath.Join(h.probeDir(), "lock"), probeTime)
	if err != nil {
		return err
	}
	defer func() { _ = own.release() }()
	sys := st.Sys().(*syscall.Stat_t)
	mark := filepath.Join(h.probeDir(), fmt.Sprintf("runsc-%d-%d-%d", sys.Dev, sys.Ino, st.ModTime().UnixNano()))
	text, err := os.ReadFile(mark)
	switch {
	case err == nil && len(text) == 0:
		return nil
	case err == nil && !again:
		return errors.New(string(text))
	}
	tried := h.startSandbox(ctx, path)
	if ctx.Err() != nil {
		return tried // it says nothing about runsc
	}
	var what []byte
	if tried != nil {
		what = []byte(tried.Error())
	}
	return errors.Join(tried, os.WriteFile(mark, what, 0o600))
}

// startSandbox runs carboy-init, which ends at once, alone in an empty root.
func (h *Host) startSandbox(ctx context.Context, runsc string) (err error) {
	bundle := h.probeBundle()
	if err := errors.Join(removeTree(bundle), os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o755)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(bundle)) }()
	config, err := json.Marshal(probeSpec(h.initPath()))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, runsc, "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, "carboy-probe")
	// The sandbox is another process, and holds the pipe.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("a sandbox does not start: %w: %s", err, printable(strings.TrimSpace(string(lastLine(out)))))
	}
	return nil
}

// sweepProbe removes what a carboy left that was killed in a probe.
func (h *Host) sweepProbe() error {
	if _, err := os.Stat(h.probeBundle()); err != nil {
		return nil //nolint:nilerr // as it should be
	}
	own, err := tryLock(filepath.Join(h.probeDir(), "lock"))
	if errors.Is(err, errHeld) {
		return nil // one is under way
	}
	if err != nil {
		return err
	}
	return errors.Join(removeTree(h.probeBundle()), own.release())
}

func probeSpec(init string) specs.Spec {
	return specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{bottlespec.InitPath, "probe"}, Cwd: "/"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}, // the state directory has no devices
			{Destination: bottlespec.InitPath, Type: "bind", Source: init, Options: []string{"bind", "ro"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}}},
	}
}

func lastLine(out []byte) []byte {
	out = bytes.TrimSpace(out)
	return out[bytes.LastIndexByte(out, '\n')+1:]
}
