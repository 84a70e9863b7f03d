// Package bottlespec makes the OCI specifications of a bottle's two
// containers. Everything in them is written to containerd's database and to a
// bundle on disk, so nothing secret ever passes through here.
package bottlespec

import (
	"context"
	"path/filepath"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// InitPath is where carboy-init stands in every container.
const InitPath = "/.carboy-init"

// ConfigDir is where the proxy finds its configuration. A directory and not a
// file, because engines watch directories for changes.
const ConfigDir = "/etc/carboy-proxy"

// Limits bound one container. Zero means no limit.
type Limits struct {
	Memory int64 // bytes
	CPUs   float64
	Pids   int64
}

// Container is what both containers have in common.
type Container struct {
	Group     string // id of the container whose shim serves the bottle
	Hostname  string
	Cgroup    string // path below each controller
	NetNS     string // path of the network namespace
	Init      string // carboy-init on the host
	Resolv    string // file on the host that becomes /etc/resolv.conf
	Hosts     string // file on the host that becomes /etc/hosts
	SharedMem int64  // size of /dev/shm in bytes
	Limits    Limits
}

// Agent is the container of the agent. Root says that commands may be run as
// root with the capabilities of RootCapabilities.
type Agent struct {
	Container
	Root      bool
	Workspace []Bind // each in the one before, or beside it
}

// Proxy is the container of the proxy engine.
type Proxy struct {
	Container
	ConfigDir string // directory on the host
	Binds     []Bind // binary and certificates of an engine that comes from the host
}

// Bind is a file or directory of the host, shown read-only unless said otherwise.
type Bind struct {
	Source, Target string
	Writable       bool
}

// Opts makes the agent's specification.
func (a Agent) Opts() oci.SpecOpts {
	var mounts []specs.Mount
	for _, b := range a.Workspace {
		m := readOnly(b.Source, b.Target)
		if b.Writable {
			m.Options = []string{"bind", "rw", "nosuid", "nodev"}
		}
		mounts = append(mounts, m)
	}
	return oci.Compose(a.opts(), oci.WithMounts(mounts), withCapabilities(Capabilities(a.Root)), seccomp.WithDefaultProfile(), withLSM())
}

// Opts makes the proxy's specification: a read-only root, and /tmp and /run in
// memory.
func (p Proxy) Opts() oci.SpecOpts {
	mounts := []specs.Mount{
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=16m"}},
		readOnly(p.ConfigDir, ConfigDir),
	}
	for _, b := range p.Binds {
		mounts = append(mounts, readOnly(b.Source, b.Target))
	}
	return oci.Compose(p.opts(), oci.WithRootFSReadonly(), oci.WithMounts(mounts),
		withCapabilities(initCapabilities), seccomp.WithDefaultProfile(), withLSM())
}

func (c Container) opts() oci.SpecOpts {
	opts := []oci.SpecOpts{
		oci.WithDefaultSpec(),
		oci.WithProcessArgs(InitPath),
		withoutEnv, // the image's would reach carboy-init's own runtime
		oci.WithNoNewPrivileges,
		oci.WithHostname(c.Hostname),
		oci.WithCgroup(c.Cgroup),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.NetNS}),
		// One shim serves both containers; honoured by the runc.v2 shim since
		// before containerd 1.6 (cmd/containerd-shim-runc-v2/manager). It has to be
		// a container's id: the shim's socket is removed by that (pkg/shim of 2.4).
		oci.WithAnnotations(map[string]string{"io.containerd.runc.v2.group": c.Group}),
		oci.WithDevShmSize(c.SharedMem >> 10),
		oci.WithMounts([]specs.Mount{
			readOnly(c.Init, InitPath),
			readOnly(c.Resolv, "/etc/resolv.conf"),
			readOnly(c.Hosts, "/etc/hosts"),
		}),
		withRlimits,
		withOOMScore,
		c.Limits.opts(),
	}
	return oci.Compose(opts...)
}

func (l Limits) opts() oci.SpecOpts {
	var opts []oci.SpecOpts
	if l.Memory > 0 {
		// Swap counts too: without it a limit only moves the pages.
		opts = append(opts, oci.WithMemoryLimit(uint64(l.Memory)), oci.WithMemorySwap(l.Memory))
	}
	if l.CPUs > 0 {
		opts = append(opts, oci.WithCPUCFS(Quota(l.CPUs), Period))
	}
	if l.Pids > 0 {
		opts = append(opts, oci.WithPidsLimit(l.Pids))
	}
	return oci.Compose(opts...)
}

// Period is that of the CPU limit in µs, the kernel's default.
const Period = 100_000

// Quota is what a number of CPUs may use in a Period, in µs.
func Quota(cpus float64) int64 { return int64(cpus * Period) }

func readOnly(source, target string) specs.Mount {
	return specs.Mount{Destination: filepath.Clean(target), Type: "bind", Source: source,
		Options: []string{"bind", "ro", "nosuid", "nodev"}}
}

func withoutEnv(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
	s.Process.Env = nil
	return nil
}

// withRlimits gives commands the open files that Node and Java expect instead
// of containerd's 1024, and turns core dumps off: a limit of one byte also
// stops the kernel from piping a dump to a collector on the host, which a
// limit of zero does not (core(5)).
func withRlimits(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
	s.Process.Rlimits = []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Hard: openFiles(), Soft: openFiles()},
		{Type: "RLIMIT_CORE", Hard: 1, Soft: 1},
	}
	return nil
}

// OOMScore makes a bottle's processes the first that the kernel ends when memory
// is short, of the host or of a unit, and carboy not. Without it they would have
// the shim's, one above containerd's: on Debian -998, among the last.
const OOMScore = 500

func withOOMScore(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
	score := OOMScore
	s.Process.OOMScoreAdj = &score
	return nil
}

// openFiles is what runc can set: raising a hard limit needs CAP_SYS_RESOURCE,
// which some hosts withhold from root.
func openFiles() uint64 {
	const want = 1 << 20
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil || have.Max > want {
		return want
	}
	if canRaise() {
		return want
	}
	return have.Max
}

func canRaise() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
