package bottlespec

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var common = Container{
	Group: "one-p", Hostname: "bottle", Cgroup: "/carboy-one-a", NetNS: "/proc/1/fd/7",
	Init: "/usr/libexec/carboy/carboy-init", Resolv: "/run/carboy/one/resolv.conf", Hosts: "/run/carboy/one/hosts",
	SharedMem: 256 << 20, Limits: Limits{Memory: 64 << 20, CPUs: 1.5, Pids: 32},
}

func specOf(t *testing.T, opts oci.SpecOpts) *oci.Spec {
	t.Helper()
	ctx := namespaces.WithNamespace(context.Background(), "carboy")
	s, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: "one-a"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// both are the specifications that a bottle is made of, and an agent's that
// was asked to be root.
func both(t *testing.T) map[string]*oci.Spec {
	t.Helper()
	return map[string]*oci.Spec{
		"agent": specOf(t, Agent{Container: common}.Opts()),
		"root":  specOf(t, Agent{Container: common, Root: true}.Opts()),
		"proxy": specOf(t, Proxy{Container: common, ConfigDir: "/run/carboy/one/proxy", Binds: []Bind{{Source: "/usr/bin/pipelock", Target: "/pipelock"}}}.Opts()),
	}
}

func mountAt(s *oci.Spec, target string) specs.Mount {
	for _, m := range s.Mounts {
		if m.Destination == target {
			return m
		}
	}
	return specs.Mount{}
}

func TestProcess(t *testing.T) {
	for name, s := range both(t) {
		p := s.Process
		if !slices.Equal(p.Args, []string{InitPath}) || len(p.Env) != 0 || p.Terminal || p.User.UID != 0 {
			t.Errorf("%s: carboy-init is started as %v, environment %v, terminal %v, uid %d", name, p.Args, p.Env, p.Terminal, p.User.UID)
		}
		if p.OOMScoreAdj == nil || *p.OOMScoreAdj != OOMScore {
			t.Errorf("%s: when memory is short it ends as late as containerd", name)
		}
		if !p.NoNewPrivileges {
			t.Errorf("%s: may gain privileges", name)
		}
		for _, r := range p.Rlimits {
			if r.Type == "RLIMIT_CORE" && (r.Hard != 1 || r.Soft != 1) || r.Type == "RLIMIT_NOFILE" && (r.Hard < 1024 || r.Hard != r.Soft) {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if len(p.Rlimits) != 2 {
			t.Errorf("%s: limits %v", name, p.Rlimits)
		}
	}
}

func TestCapabilities(t *testing.T) {
	forbidden := []string{"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_DAC_READ_SEARCH", "CAP_BPF", "CAP_SYSLOG"}
	init := slices.Sorted(slices.Values(initCapabilities))
	for name, s := range both(t) {
		c := s.Process.Capabilities
		want := init
		if name == "root" {
			want = union(init, RootCapabilities)
		}
		for set, got := range map[string][]string{"bounding": c.Bounding, "effective": c.Effective, "permitted": c.Permitted} {
			if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, want) {
				t.Errorf("%s: %s %v", name, set, sorted)
			}
			for _, f := range forbidden {
				if slices.Contains(got, f) {
					t.Errorf("%s: %s in %s", name, f, set)
				}
			}
			if strings.Contains(strings.Join(got, " "), "CAP_SYS_") {
				t.Errorf("%s: a CAP_SYS_ in %s", name, set)
			}
		}
		if len(c.Ambient)+len(c.Inheritable) != 0 {
			t.Errorf("%s: ambient %v, inheritable %v", name, c.Ambient, c.Inheritable)
		}
	}
}

func TestRootCapabilityNumbers(t *testing.T) {
	got := RootCapabilityNumbers()
	if len(got) != len(RootCapabilities) {
		t.Fatalf("%d numbers for %d names", len(got), len(RootCapabilities))
	}
	for _, n := range got {
		if c := capability.Cap(n); c == capability.CAP_NET_RAW || c == capability.CAP_SYS_ADMIN || !slices.Contains(RootCapabilities, name(c)) {
			t.Errorf("%v", c)
		}
	}
}

func TestNamespaces(t *testing.T) {
	for name, s := range both(t) {
		got := map[specs.LinuxNamespaceType]string{}
		for _, ns := range s.Linux.Namespaces {
			if _, twice := got[ns.Type]; twice {
				t.Errorf("%s: two of %s", name, ns.Type)
			}
			got[ns.Type] = ns.Path
		}
		for _, own := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace} {
			if path, ok := got[own]; !ok || path != "" {
				t.Errorf("%s: %s is shared (%q, %v)", name, own, path, ok)
			}
		}
		if got[specs.NetworkNamespace] != common.NetNS {
			t.Errorf("%s: network %q", name, got[specs.NetworkNamespace])
		}
	}
}

// Every source on the host is one that was named; no socket is among them.
func TestMounts(t *testing.T) {
	fromHost := map[string][]string{
		"agent": {InitPath, "/etc/hosts", "/etc/resolv.conf"},
		"root":  {InitPath, "/etc/hosts", "/etc/resolv.conf"},
		"proxy": {InitPath, ConfigDir, "/etc/hosts", "/etc/resolv.conf", "/pipelock"},
	}
	for name, s := range both(t) {
		var binds []string
		for _, m := range s.Mounts {
			switch {
			case m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind"):
				binds = append(binds, m.Destination)
				for _, option := range []string{"ro", "nosuid", "nodev"} {
					if !slices.Contains(m.Options, option) {
						t.Errorf("%s: %s is not %s", name, m.Destination, option)
					}
				}
			case strings.HasPrefix(m.Source, "/"):
				t.Errorf("%s: %+v", name, m)
			case m.Type == "cgroup" || m.Type == "cgroup2" || m.Type == "sysfs":
				if !slices.Contains(m.Options, "ro") {
					t.Errorf("%s: %s can be written", name, m.Destination)
				}
			}
		}
		slices.Sort(binds)
		if !slices.Equal(binds, fromHost[name]) {
			t.Errorf("%s: from the host come %v", name, binds)
		}
		if shm := mountAt(s, "/dev/shm"); !slices.Contains(shm.Options, "size=262144k") {
			t.Errorf("%s: shared memory %v", name, shm.Options)
		}
	}
	proxy := both(t)["proxy"]
	if m := mountAt(proxy, "/pipelock"); m.Source != "/usr/bin/pipelock" {
		t.Errorf("engine %+v", m)
	}
	if m := mountAt(proxy, "/tmp"); m.Type != "tmpfs" || !slices.Contains(m.Options, "noexec") || !slices.Contains(m.Options, "nosuid") {
		t.Errorf("the proxy's /tmp %+v", m)
	}
	if !proxy.Root.Readonly || both(t)["agent"].Root.Readonly {
		t.Error("the proxy's root can be written, or the agent's cannot")
	}
}

func TestKernelSurface(t *testing.T) {
	for name, s := range both(t) {
		if s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction != specs.ActErrno {
			t.Errorf("%s: no seccomp filter that refuses by default", name)
			continue
		}
		for _, call := range []string{"mount", "bpf", "setns", "init_module", "kexec_load", "open_by_handle_at", "perf_event_open"} {
			for _, rule := range s.Linux.Seccomp.Syscalls {
				if slices.Contains(rule.Names, call) && rule.Action == specs.ActAllow {
					t.Errorf("%s: %s is allowed", name, call)
				}
			}
		}
		for _, masked := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"} {
			if !slices.Contains(s.Linux.MaskedPaths, masked) {
				t.Errorf("%s: %s is not masked", name, masked)
			}
		}
		for _, readonly := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq"} {
			if !slices.Contains(s.Linux.ReadonlyPaths, readonly) {
				t.Errorf("%s: %s can be written", name, readonly)
			}
		}
		if len(s.Linux.Devices) != 0 || len(s.Linux.Sysctl) != 0 || s.Hooks != nil {
			t.Errorf("%s: devices %v, sysctl %v, hooks %v", name, s.Linux.Devices, s.Linux.Sysctl, s.Hooks)
		}
		if first := s.Linux.Resources.Devices[0]; first.Allow || first.Access != "rwm" {
			t.Errorf("%s: devices are allowed by default: %+v", name, first)
		}
	}
}

func TestLimits(t *testing.T) {
	r := both(t)["agent"].Linux.Resources
	if *r.Memory.Limit != 64<<20 || *r.Memory.Swap != 64<<20 || *r.CPU.Quota != 150_000 || *r.CPU.Period != 100_000 || *r.Pids.Limit != 32 {
		b, _ := json.Marshal(r)
		t.Errorf("%s", b)
	}
	free := common
	free.Limits = Limits{}
	if r := specOf(t, Agent{Container: free}.Opts()).Linux.Resources; r.Memory != nil || r.CPU != nil && r.CPU.Quota != nil || r.Pids != nil {
		t.Errorf("limits that nobody set: %+v", r)
	}
}

func TestNames(t *testing.T) {
	for name, s := range both(t) {
		if s.Hostname != "bottle" || s.Linux.CgroupsPath != "/carboy-one-a" || s.Annotations["io.containerd.runc.v2.group"] != "one-p" {
			t.Errorf("%s: %s, %s, %v", name, s.Hostname, s.Linux.CgroupsPath, s.Annotations)
		}
	}
}
