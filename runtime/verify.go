package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"carboy/runtime/bottlespec"
)

// verify reads back what the seal rests on beside the network, which wire has
// read back: the agent's container as containerd runs it, in the namespace that
// was wired. The agent's command starts only when every point is proved.
func (b *Bottle) verify(ctx context.Context) error {
	defer b.host.Trace.step("verify")()
	container, err := b.host.Client.LoadContainer(ctx, b.agentID())
	if err != nil {
		return fmt.Errorf("load container: %w", err)
	}
	spec, err := container.Spec(ctx)
	if err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	return errors.Join(checkSpec(spec, b.network.IsolatedPath()), b.checkNamespace(), b.checkLSM(spec), b.checkLimits())
}

// checkNamespace compares the network namespace that the container runs in
// with the one that was wired.
func (b *Bottle) checkNamespace() error {
	path := fmt.Sprintf("/proc/%d/ns/net", b.agent.task.Pid())
	have, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("agent's network namespace: %w", err)
	}
	want, err := os.Stat(b.network.IsolatedPath())
	if err != nil {
		return fmt.Errorf("isolated network namespace: %w", err)
	}
	if !os.SameFile(have, want) {
		return errors.New("the agent's container runs in another network namespace than was wired")
	}
	return nil
}

// checkLSM: a sandbox of gVisor is not confined by the host's modules.
func (b *Bottle) checkLSM(s *specs.Spec) error {
	if b.options.Runsc != "" {
		return nil
	}
	return bottlespec.CheckLSM(b.agent.task.Pid(), s.Process)
}

func checkSpec(s *specs.Spec, netNS string) error {
	var errs []error
	require := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	require(s.Process.NoNewPrivileges, "no_new_privs is off")
	require(s.Linux.Seccomp != nil && s.Linux.Seccomp.DefaultAction == specs.ActErrno, "no seccomp profile that refuses by default")
	for _, module := range bottlespec.NeedsLSM(s.Process) {
		require(false, "not confined by "+module+", which this host has on")
	}
	require(len(s.Process.Env) == 0, "the container has an environment of its own")
	require(s.Linux.Resources != nil && s.Linux.Resources.Memory != nil && s.Linux.Resources.Pids != nil, "no memory or pids limit")
	for _, c := range []string{"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_MKNOD"} {
		require(!slices.Contains(s.Process.Capabilities.Bounding, c), "capability "+c+" is granted")
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace} {
		require(slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind && n.Path == "" }),
			"no "+string(kind)+" namespace of its own")
	}
	require(slices.Contains(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: netNS}), "not in the isolated network namespace")
	return errors.Join(errs...)
}
