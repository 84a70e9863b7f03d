package bottlespec

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// initCapabilities is what carboy-init starts with. It drops the first three
// and the last with its seal, before any code of the image runs.
var initCapabilities = []string{
	"CAP_CHOWN",        // files and terminals get their owner
	"CAP_DAC_OVERRIDE", // files go into directories of the image's user
	"CAP_FOWNER",       // and get their mode
	"CAP_KILL",         // signals to commands of another user
	"CAP_SETGID",       // commands get their user
	"CAP_SETUID",
	"CAP_SETPCAP", // the bounding set can be emptied
}

// RootCapabilities is what a command run as root may have, in a bottle whose
// agent was asked to be root: containerd's default set less NET_RAW, which
// forges packets, MKNOD and SYS_CHROOT. Nobody else has any.
var RootCapabilities = []string{
	"CAP_AUDIT_WRITE",
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP",
	"CAP_SETGID",
	"CAP_SETPCAP",
	"CAP_SETUID",
}

// RootCapabilityNumbers are the kernel's numbers of RootCapabilities.
func RootCapabilityNumbers() []int {
	var numbers []int
	for _, c := range capability.ListKnown() {
		if slices.Contains(RootCapabilities, name(c)) {
			numbers = append(numbers, int(c))
		}
	}
	return numbers
}

// Capabilities are what the specification gives to the agent's container.
func Capabilities(root bool) []string {
	if root {
		return union(initCapabilities, RootCapabilities)
	}
	return initCapabilities
}

// SealedCapabilities are the most that any process of the agent's container has
// once carboy-init is sealed, and the most that it can ever get, as bits.
func SealedCapabilities(root bool) (has, bounding uint64) {
	for _, c := range []capability.Cap{capability.CAP_CHOWN, capability.CAP_KILL, capability.CAP_SETGID, capability.CAP_SETUID} {
		has |= 1 << c // carboy-init's own
	}
	if root {
		for _, n := range RootCapabilityNumbers() {
			bounding |= 1 << n
		}
	}
	return has | bounding, bounding
}

func withCapabilities(caps []string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		return nil
	}
}

func union(a, b []string) []string {
	both := slices.Concat(a, b)
	slices.Sort(both)
	return slices.Compact(both)
}
