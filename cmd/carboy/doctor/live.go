package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"carboy/runtime"
)

// live is a containerd that answers.
type live struct{ *runtime.Host }

func (l live) Version(ctx context.Context) (string, error) {
	v, err := l.Client.Version(ctx)
	return v.Version, err
}

// Snapshotter asks it for a snapshot that is not there: so it has to work, and
// nothing changes.
func (l live) Snapshotter(ctx context.Context) error {
	_, err := l.Client.SnapshotService(l.Config.Snapshotter).Stat(l.Context(ctx), "carboy-doctor-asks")
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func (l live) Namespaces(ctx context.Context) ([]string, error) {
	return l.Client.NamespaceService().List(ctx)
}

func (l live) Root(ctx context.Context) (string, error) { return l.Host.Images.Root(ctx) }

func (l live) Images(ctx context.Context) ([]imageRecord, error) {
	all, err := l.Client.ImageService().List(l.Context(ctx))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var list []imageRecord
	for _, img := range all {
		list = append(list, imageRecord{img.Name, img.UpdatedAt})
	}
	return list, nil
}

// PATH is what containerd looks for its shim in, which looks for runc in it:
// not the caller's. The shim may also be beside containerd.
func (l live) PATH() string {
	pid, err := l.DaemonPID()
	if err != nil {
		return ""
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if path, found := strings.CutPrefix(string(v), "PATH="); found {
			self, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // empty adds nothing that matters
			return path + string(filepath.ListSeparator) + filepath.Dir(self)
		}
	}
	return ""
}

func (l live) Try(ctx context.Context, path string) error { return l.TryRuntime(ctx, path) }

// Runsc is what `carboy run` would choose, which remembers whether it works.
func (l live) Runsc(ctx context.Context) (path, note string, err error) {
	if err := l.CheckReady(); err != nil {
		return "", "", err
	}
	return l.ChooseRuntime(ctx, "auto")
}

func (l live) Ask(ctx context.Context, plugins string, server netip.Addr) error {
	h := *l.Host
	h.PluginDir = plugins
	return h.TryUplink(l.Context(ctx), server)
}

func (l live) Leftovers(ctx context.Context) ([]runtime.Swept, error) {
	return l.GC(l.Context(ctx), runtime.Sweep{Dry: true})
}

func (l live) Bottles(ctx context.Context) ([]runtime.Status, error) {
	list, err := l.List(l.Context(ctx))
	if err != nil && list == nil {
		return nil, errors.Join(errors.New("list bottles"), err)
	}
	return list, err
}
