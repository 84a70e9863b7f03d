package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// seeded is something wrong with a live bottle, and the probes that have to fail
// for it, and no others.
type seeded struct {
	name  string
	seed  func(*testing.T, *rig, *live)
	runc  []string
	runsc []string
}

var seededFaults = []seeded{
	{"route", in(agentNet, "ip", "route", "add", "198.51.100.0/24", "dev", "eth0"),
		[]string{"routes", "agent-network"}, []string{"routes"}},
	{"ipv6", in(agentNet, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6"),
		[]string{"addresses", "ipv6", "agent-network"}, []string{"addresses", "ipv6"}},
	{"forwarding", in(proxyNet, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"),
		[]string{"forwarding"}, []string{"forwarding"}},
	{"link", in(agentNet, "ip", "link", "add", "more0", "type", "veth", "peer", "name", "more1"),
		[]string{"links", "agent-network"}, []string{"links"}},
	{"raw", grantRaw, []string{"capabilities", "agent-rights"}, []string{"capabilities", "agent-rights"}},
	{"socket", mountSocket, []string{"mounts", "agent-sockets"}, []string{"mounts"}},
	{"listener", listenEverywhere, []string{"listener"}, []string{"listener"}},
	{"filter", flushAndForward, withoutFilter, withoutFilter},
	{"pids", noPidsLimit, []string{"limits"}, []string{"limits"}},
	{"resolver", addResolver, []string{"resolver", "agent-resolver"}, []string{"resolver", "agent-resolver"}},
}

// withoutFilter: packets of the agent's link go anywhere, and what the agent
// asks at the proxy's address is answered.
var withoutFilter = []string{"forwarding", "filter", "link-to-egress", "link-to-host", "link-to-gateway", "link-to-metadata",
	"link-to-bottles", "link-to-resolvers", "agent-to-egress", "agent-to-resolvers"}

// TestVerifyFinds seeds one fault in each of ten live bottles, beside a sound
// one: each is found where it is, and nowhere else.
func TestVerifyFinds(t *testing.T) {
	r := newRig(t, 1)
	for _, runtime := range runtimes {
		for _, engine := range engines(t) {
			t.Run(runtime+"/"+engine, func(t *testing.T) { findFaults(t, r, runtime, engine) })
		}
	}
}

func findFaults(t *testing.T, r *rig, runtime, engine string) {
	flags := append(engineFlags(engine), "--runtime", runtime, "--allow", "allowed.test")
	r.start(t, append(flags, "--name", "sound")...)
	for _, f := range seededFaults {
		f.seed(t, r, r.start(t, append(flags, "--name", f.name)...))
	}
	all, failed := r.verify(t, "--all")
	if len(failed["sound"]) > 0 {
		t.Errorf("a sound bottle: %v", failed["sound"])
	}
	for _, f := range seededFaults {
		want := map[string][]string{"runc": f.runc, "runsc": f.runsc}[runtime]
		if got := failed[f.name]; !slices.Equal(got, want) {
			t.Errorf("%s: failed are %v, want %v", f.name, got, want)
			for _, p := range all {
				if p.Bottle == f.name && p.Result != "PASS" {
					t.Logf("%+v", p)
				}
			}
		}
	}
}

// Places of inspect's PIDs.
const (
	agentNet = iota
	proxyNet
)

func in(place int, command ...string) func(*testing.T, *rig, *live) {
	return func(t *testing.T, _ *rig, l *live) {
		pid := strconv.Itoa(l.inspect(t).PIDs[place])
		hostTool(t, "nsenter", append([]string{"-t", pid, "-n", "--"}, command...)...)
	}
}

func flushAndForward(t *testing.T, r *rig, l *live) {
	in(proxyNet, "nft", "flush", "ruleset")(t, r, l)
	in(proxyNet, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")(t, r, l)
}

func noPidsLimit(t *testing.T, _ *rig, l *live) {
	put(t, groupFile(t, l.inspect(t).Instance, "pids", "pids.max"), "max")
}

// addResolver writes to the very file that the container has.
func addResolver(t *testing.T, _ *rig, l *live) {
	put(t, l.inspect(t).RunDir+"/resolv.conf", "nameserver 8.8.8.8\n")
}

// listenEverywhere opens a socket of the proxy's namespace.
func listenEverywhere(t *testing.T, _ *rig, l *live) {
	var listening net.Listener
	pid := l.inspect(t).PIDs[proxyNet]
	err := onThread(func() (err error) {
		if err := enter(pid, "net", unix.CLONE_NEWNET); err != nil {
			return err
		}
		listening, err = net.Listen("tcp4", "0.0.0.0:9999")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listening.Close() })
}

// onThread runs f on a thread that ends with it: never the main one, which does
// not end.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(f)
			goruntime.UnlockOSThread()
			return
		}
		done <- f() // and never unlocked
	}()
	return <-done
}

func enter(pid int, kind string, flag int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), flag)
}

func (r *rig) container(t *testing.T, l *live, f func(context.Context, client.Container) error) {
	t.Helper()
	c, err := r.containerd.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := namespaces.WithNamespace(t.Context(), r.namespace)
	container, err := c.LoadContainer(ctx, l.inspect(t).Instance+"-a")
	if err == nil {
		err = f(ctx, container)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// grantRaw runs a process in the container that has the capability. runsc takes
// it away from each (its flag net-raw), so there it has another as well, and the
// specification has it.
func grantRaw(t *testing.T, r *rig, l *live) {
	r.container(t, l, func(ctx context.Context, c client.Container) error {
		spec, err := c.Spec(ctx)
		if err != nil {
			return err
		}
		granted := []string{"CAP_NET_RAW"}
		if r.runtimeOf(t, l) == "runsc" {
			granted = append(granted, "CAP_SYS_ADMIN")
			spec.Process.Capabilities.Bounding = append(spec.Process.Capabilities.Bounding, "CAP_NET_RAW")
			if err := respecify(ctx, c, spec); err != nil {
				return err
			}
		}
		process := *spec.Process
		process.Args, process.Env = []string{"/bin/sleep", "1000"}, []string{"PATH=/bin"}
		process.Capabilities = &specs.LinuxCapabilities{Bounding: granted, Effective: granted, Permitted: granted}
		task, err := c.Task(ctx, nil)
		if err != nil {
			return err
		}
		more, err := task.Exec(ctx, "raw", &process, cio.NullIO)
		if err != nil {
			return err
		}
		return more.Start(ctx)
	})
}

// respecify changes what containerd has on record.
func respecify(ctx context.Context, c client.Container, spec *specs.Spec) error {
	return c.Update(ctx, func(ctx context.Context, cl *client.Client, c *containers.Container) error {
		return client.WithSpec(spec)(ctx, cl, c)
	})
}

func (r *rig) runtimeOf(t *testing.T, l *live) string {
	t.Helper()
	list := r.ls(t)
	return list[slices.IndexFunc(list, func(b listed) bool { return b.Name == l.name })].Runtime
}

// mountSocket gives containerd's own to the agent. What runsc would mount is only
// in the specification.
func mountSocket(t *testing.T, r *rig, l *live) {
	at := "/tmp/containerd.sock"
	if r.runtimeOf(t, l) == "runsc" {
		r.container(t, l, func(ctx context.Context, c client.Container) error {
			spec, err := c.Spec(ctx)
			if err != nil {
				return err
			}
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: at, Type: "bind", Source: r.containerd.Address, Options: []string{"bind"}})
			return respecify(ctx, c, spec)
		})
		return
	}
	if o := l.exec(t, "touch", at); o.code != 0 {
		t.Fatalf("%v", o)
	}
	pid := l.inspect(t).PIDs[agentNet]
	err := onThread(func() error {
		tree, err := unix.OpenTree(unix.AT_FDCWD, r.containerd.Address, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(tree)
		if err := errors.Join(unix.Unshare(unix.CLONE_FS), enter(pid, "mnt", unix.CLONE_NEWNS)); err != nil {
			return err
		}
		return unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
	if err != nil {
		t.Fatal(err)
	}
}
