package verify

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"carboy/runtime/bottlespec"
)

// Container is the agent's, as it is to be looked at from the host.
type Container struct {
	Spec    *specs.Spec // as containerd runs it
	PID     int         // of its first process, or of its sandbox
	Sandbox bool        // of gVisor
	Root    bool        // the agent was asked to be root
	NetNS   string      // path of the namespace that was wired
	Dir     string      // the bottle's run directory, where its files come from
	Init    string      // carboy-init on the host
	Resolv  string      // the agent's resolv.conf on the host
	Proxy   int         // pid of the proxy's first process
	Listen  netip.AddrPort
	// Members are the processes in its control group.
	Members func() ([]int, error)
}

// Probes read back what is in force, in a few milliseconds.
func (c Container) Probes() []Probe {
	return []Probe{
		{"namespaces", Reads("its own, and the network that was wired", c.namespaces)},
		{"capabilities", Reads("what carboy-init works with, and what was asked for", c.capabilities)},
		{"seccomp", Reads("a filter that refuses by default", c.seccomp)},
		{"no-new-privs", Reads("on", c.noNewPrivs)},
		{"lsm", Reads("confined as specified", c.lsm)},
		{"environment", Reads("containerd has none", c.environment)},
		{"mounts", Reads("carboy's own, and no socket", c.mounts)},
		{"devices", Reads("none but the usual", c.devices)},
		{"listener", Reads("at "+c.Listen.String()+" alone", c.listener)},
		{"resolver", Reads("none in resolv.conf", c.resolver)},
	}
}

func (c Container) namespaces() error {
	var errs []error
	own := []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace}
	for _, kind := range own {
		if !slices.Contains(c.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind}) {
			errs = append(errs, fmt.Errorf("no %s namespace of its own", kind))
		}
	}
	if !slices.Contains(c.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.NetNS}) {
		errs = append(errs, errors.New("not specified to be in the isolated network namespace"))
	}
	same, err := sameFile(fmt.Sprintf("/proc/%d/ns/net", c.PID), c.NetNS)
	if err == nil && !same {
		err = errors.New("it runs in another network namespace than was wired")
	}
	errs = append(errs, err)
	if !c.Sandbox { // whose processes are not the agent's
		errs = append(errs, c.unshared())
	}
	return errors.Join(errs...)
}

func (c Container) unshared() error {
	var errs []error
	for _, kind := range []string{"pid", "ipc", "uts", "mnt"} {
		same, err := sameFile(fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind), "/proc/self/ns/"+kind)
		if err == nil && same {
			err = fmt.Errorf("its %s namespace is the host's", kind)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func sameFile(a, b string) (bool, error) {
	one, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	other, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(one, other), nil
}

// lsm: a sandbox of gVisor is not confined by the host's modules.
func (c Container) lsm() error {
	var errs []error
	for _, module := range bottlespec.NeedsLSM(c.Spec.Process) {
		errs = append(errs, errors.New("not confined by "+module+", which this host has on"))
	}
	if !c.Sandbox {
		errs = append(errs, bottlespec.CheckLSM(uint32(c.PID), c.Spec.Process))
	}
	return errors.Join(errs...)
}

func (c Container) environment() error {
	if n := len(c.Spec.Process.Env); n != 0 {
		return fmt.Errorf("the container has an environment of its own, of %d variables", n)
	}
	return nil
}

func (c Container) devices() error {
	resources := c.Spec.Linux.Resources
	if len(c.Spec.Linux.Devices) > 0 {
		return fmt.Errorf("%d devices beside the usual", len(c.Spec.Linux.Devices))
	}
	allowed := func(d specs.LinuxDeviceCgroup) bool { return d.Allow } // the usual ones are the runtime's to allow
	if resources == nil || len(resources.Devices) == 0 || slices.ContainsFunc(resources.Devices, allowed) {
		return errors.New("the specification allows devices")
	}
	return nil
}

func (c Container) resolver() error {
	b, err := os.ReadFile(c.Resolv)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		if fields := strings.Fields(string(line)); len(fields) > 0 && fields[0] == "nameserver" {
			return fmt.Errorf("resolv.conf names %q", fields[1:])
		}
	}
	return nil
}
