package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// What Open and CheckReady look at, one by one: for a doctor, which goes on
// after the first that is wrong.

// CheckDirectories refuses directories that another user could change. They
// need not be there yet.
func (c Config) CheckDirectories() error {
	if err := c.checkDirectories(); err != nil {
		return err
	}
	_, err := os.Lstat(c.StateDir)
	if errors.Is(err, os.ErrNotExist) {
		return onTmpfs(c.StateDir)
	}
	return errors.Join(err, onTmpfs(c.StateDir), forRootAlone(c.StateDir))
}

// MakeDirectories makes those that are missing, as a first run would, and
// returns which.
func (c Config) MakeDirectories() (made []string, err error) {
	if err := c.checkDirectories(); err != nil {
		return nil, err
	}
	if err := onTmpfs(c.StateDir); err != nil {
		return nil, err
	}
	for _, dir := range []string{c.StateDir, c.LogDir, c.DataDir} {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return made, fmt.Errorf("make %s: %w", dir, err)
		}
		made = append(made, dir)
	}
	return made, nil
}

// CheckMounts refuses another mount namespace than containerd's.
func (c Config) CheckMounts() error { return (&Host{Config: c}).checkMounts() }

// CheckResolvers returns whom a proxy asks for names.
func (c Config) CheckResolvers() ([]netip.Addr, error) { return (&Host{Config: c}).resolvers() }

// DaemonPID is containerd's process. It fails where that is in another pid
// namespace.
func (c Config) DaemonPID() (int, error) { return peerPID(c.Address) }

// TryRuntime really starts a container with the OCI runtime at path, alone in
// an empty root, and remembers nothing of it.
func (h *Host) TryRuntime(ctx context.Context, path string) error {
	if err := h.CheckReady(); err != nil {
		return err
	}
	own, err := waitLock(ctx, filepath.Join(h.probeDir(), "lock"), probeTime)
	if err != nil {
		return fmt.Errorf("another try is under way: %w: %w", err, errdefs.ErrUnavailable)
	}
	return errors.Join(h.startSandbox(ctx, path), own.release())
}

// TryUplink makes a link out as bottles have it, under a lease by which gc
// undoes it should this process be killed, and asks a resolver through it. It is
// undone at the end.
func (h *Host) TryUplink(ctx context.Context, server netip.Addr) (err error) {
	if err := h.CheckReady(); err != nil {
		return err
	}
	n := &buildNetwork{host: h}
	if err := n.up(ctx); err != nil {
		return err
	}
	return errors.Join(n.outlet.Ask(ctx, server), n.close(ctx))
}
