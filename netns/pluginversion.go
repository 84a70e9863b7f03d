package netns

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/invoke"
)

// PluginVersion asks the plugins in a directory for the newest version of CNI
// that they speak. That they do not speak carboy's is an error of class
// errdefs.ErrFailedPrecondition.
func PluginVersion(ctx context.Context, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pluginTime)
	defer cancel()
	var speaks []string
	for _, name := range []string{"ptp", "host-local"} {
		info, err := invoke.GetVersionInfo(ctx, filepath.Join(dir, name), &runner{})
		if err != nil {
			return "", fmt.Errorf("plugin %s in %s does not say its version: %w", name, dir, err)
		}
		speaks = info.SupportedVersions()
		if !slices.Contains(speaks, cniVersion) {
			return "", fmt.Errorf("plugin %s in %s speaks CNI %s and not %s: %w", name, dir, strings.Join(speaks, ", "), cniVersion, errdefs.ErrFailedPrecondition)
		}
	}
	return speaks[len(speaks)-1], nil
}
