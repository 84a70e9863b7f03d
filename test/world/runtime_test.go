package world

import (
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
)

// withRuntime uses the one shim for both.
func withRuntime(t *testing.T, name string) containerd.NewContainerOpts {
	t.Helper()
	options := &runcoptions.Options{}
	if name == "runsc" {
		path, err := Runsc()
		if err != nil {
			t.Fatal(err)
		}
		options.BinaryName = path
	}
	return containerd.WithRuntime("io.containerd.runc.v2", options)
}
