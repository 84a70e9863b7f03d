package runtime

import (
	"cmp"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"carboy/image"
	"carboy/netns"
	"carboy/runtime/bottlespec"
	"carboy/runtime/initproto"
	"carboy/runtime/provision"
	"carboy/runtime/proxy"
)

func (b *Bottle) container(id, hostname, files, netNS string, l bottlespec.Limits) bottlespec.Container {
	in := func(name string) string { return filepath.Join(b.dir(), files+name) }
	return bottlespec.Container{
		Group: b.proxyID(), Hostname: hostname, Cgroup: b.cgroup(id), NetNS: netNS, Init: b.host.initPath(),
		Resolv: in("resolv.conf"), Hosts: in("hosts"), SharedMem: sharedMemory, Limits: l,
	}
}

const sharedMemory = 256 << 20 // browsers need more than the usual 64 MiB

func (b *Bottle) agentSpec() (cellSpec, error) {
	img := b.images.agent
	if err := b.resolveCommand(img); err != nil {
		return cellSpec{}, err
	}
	l := b.plan.Limits
	agent := bottlespec.Agent{Root: b.root, Container: b.container(b.agentID(), b.Name, "",
		b.network.IsolatedPath(), bottlespec.Limits{Memory: l.Memory, CPUs: l.CPUs, Pids: l.Pids})}
	agent.Workspace = b.mountBinds()
	if w := b.plan.Workspace; w != nil {
		agent.Workspace = append(agent.Workspace, append([]bottlespec.Bind{{Source: b.workspaceTree(), Target: w.Target, Writable: true}}, b.guards...)...)
	}
	return cellSpec{id: b.agentID(), parent: img.Parent, runtime: b.options.Runsc, spec: agent.Opts()}, nil
}

// The engine's own limits: pipelock takes 25 MiB at rest.
var proxyLimits = bottlespec.Limits{Memory: 512 << 20, Pids: 256}

func (b *Bottle) proxySpec() cellSpec {
	spec := bottlespec.Proxy{ConfigDir: filepath.Join(b.dir(), "proxy"), Container: b.container(b.proxyID(),
		"proxy", "proxy-", b.network.EgressPath(), proxyLimits)}
	if b.plan.Proxy.Image == "" {
		spec.Binds = b.engineBinds()
	}
	return cellSpec{id: b.proxyID(), parent: b.images.proxy.Parent, spec: spec.Opts()}
}

// engineBinds shows an engine of the host, and the authorities it trusts, in
// an empty root.
func (b *Bottle) engineBinds() []bottlespec.Bind {
	source := b.host.egressPath()
	if b.options.Binary != "" {
		source = b.options.Binary
	}
	binds := []bottlespec.Bind{{Source: source, Target: b.engine.Path}}
	const authorities = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(authorities); err == nil {
		binds = append(binds, bottlespec.Bind{Source: authorities, Target: authorities})
	}
	return binds
}

// resolveCommand settles what the plan left to the image. An image may name
// root, but only the operator gets it.
func (b *Bottle) resolveCommand(img image.Image) error {
	b.root = isRoot(b.plan.User)
	user := b.plan.User
	if user == "" {
		user = img.Config.User
		if user == "" || isRoot(user) {
			user = DefaultUser
		}
	}
	b.command = initproto.Spec{
		Dir: cmp.Or(b.plan.Workdir, b.plan.Workspace.target(), img.Config.WorkingDir, "/"), User: user,
		TTY: b.plan.TTY, NotRoot: !b.root,
	}
	b.command.Env = b.environment(img.Config.Env)
	for _, args := range [][]string{b.plan.Command, b.provisions().Command(), slices.Concat(img.Config.Entrypoint, img.Config.Cmd)} {
		if len(args) > 0 {
			b.command.Args = args
			return nil
		}
	}
	return invalid("image %s names no command: give one after --", img.Ref)
}

func isRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "root" || strings.Trim(name, "0") == "" && name != ""
}

// files are what carboy-init writes before any code of the image runs.
func (b *Bottle) files(what string) ([]initproto.File, error) {
	if what != "agent" {
		return b.engine.Held(b.engineSecrets(), b.engineUser())
	}
	return b.provisions().Files()
}

// provisions are what the agent is given.
func (b *Bottle) provisions() provision.Agent {
	a := b.plan.provision
	a.Authority = b.authority.Certificate
	a.User, a.Workdir, a.Root, a.Variables, a.Secrets = b.command.User, b.command.Dir, b.root, b.plan.env, b.plan.secretFiles
	a.Proxy, a.Workspace, a.SSH = b.listen(), b.plan.Workspace.target(), b.sshHosts()
	return a
}

func (b *Bottle) listen() netip.AddrPort { return netip.AddrPortFrom(netns.ProxyAddr, proxy.Port) }
