// Package sysctl reads and writes the kernel's switches, by their path below
// /proc/sys. Those of the network are the calling thread's namespace's.
package sysctl

import (
	"os"
	"path/filepath"
)

// Forward is the switch that makes a router.
const Forward = "net/ipv4/ip_forward"

// Set writes one. A switch that this kernel lacks is of class fs.ErrNotExist.
func Set(key, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
}

// Get reads one, without the end of its line; errors are as those of Set.
func Get(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc/sys", key))
	if err != nil {
		return "", err
	}
	return string(b[:max(0, len(b)-1)]), nil
}
