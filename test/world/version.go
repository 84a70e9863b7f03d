package world

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The pieces that `make deps` puts below DepsDir.
const (
	pinnedContainerd = "containerd-2.4.2"
	pinnedCNI        = "cni-1.9.1"
	pinnedRunsc      = "runsc-20260905"
)

// PluginDirDebian is where Debian's CNI plugins are.
const PluginDirDebian = "/usr/lib/cni"

// Version is a containerd that tests run against, and CNI plugins of its time.
type Version struct {
	Name      string
	Bin       string
	ShimDir   string // of containerd-shim-runc-v2
	PluginDir string
	Disk      int64 // bytes that a root of its own has; 0: as much as the world's
}

// Versions returns all that tests have to pass on. A missing one is an error.
func Versions() ([]Version, error) {
	debian, err := debian()
	if err != nil {
		return nil, err
	}
	pinned, err := pinned()
	return []Version{debian, pinned}, err
}

// Installed returns one that is here, for what may run on any.
func Installed() (Version, error) {
	v, err := debian()
	if err == nil {
		return v, nil
	}
	v, pinnedErr := pinned()
	if pinnedErr == nil {
		return v, nil
	}
	return Version{}, errors.Join(err, pinnedErr)
}

func debian() (Version, error) {
	v := Version{Name: "debian", Bin: "/usr/bin/containerd", ShimDir: "/usr/bin", PluginDir: PluginDirDebian}
	for _, path := range []string{v.Bin, filepath.Join(v.ShimDir, "containerd-shim-runc-v2"), filepath.Join(v.PluginDir, "ptp")} {
		if _, err := os.Stat(path); err != nil {
			return Version{}, fmt.Errorf("containerd of the distribution: %w: run `make deps`", err)
		}
	}
	return v, nil
}

func pinned() (Version, error) {
	dir, err := piece(pinnedContainerd, "containerd", "containerd-shim-runc-v2")
	if err != nil {
		return Version{}, err
	}
	plugins, err := PluginDir()
	return Version{Name: "2.4.2", Bin: filepath.Join(dir, "containerd"), ShimDir: dir, PluginDir: plugins}, err
}

// PluginDir returns the directory of the pinned CNI plugins.
func PluginDir() (string, error) { return piece(pinnedCNI, "ptp", "host-local") }

// Runsc returns the path of the pinned runsc.
func Runsc() (string, error) {
	dir, err := piece(pinnedRunsc, "runsc")
	return filepath.Join(dir, "runsc"), err
}

// DepsDir is $CARBOY_DEPS, or carboy-deps in the user's cache directory.
func DepsDir() (string, error) {
	if dir := os.Getenv("CARBOY_DEPS"); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find test dependencies: set CARBOY_DEPS: %w", err)
	}
	return filepath.Join(cache, "carboy-deps"), nil
}

// piece returns a directory of DepsDir that holds all these files.
func piece(name string, files ...string) (string, error) {
	deps, err := DepsDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(deps, name)
	for _, f := range files {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			return "", fmt.Errorf("test dependency %s: %w: run `make deps`", name, err)
		}
	}
	return dir, nil
}

// searchPath is what containerd finds its shim, runc and, where it was built,
// runsc by. Debian's runc is in /usr/sbin, which a user's PATH may lack.
func (v Version) searchPath() string {
	dirs := []string{v.ShimDir, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	if runsc, err := Runsc(); err == nil {
		dirs = slices.Insert(dirs, 1, filepath.Dir(runsc))
	}
	return strings.Join(dirs, ":")
}
