package doctor

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/image/registry"
	"carboy/netns/uplink"
	"carboy/runtime"
	"carboy/runtime/proxy"
)

var someday = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

// fake is a containerd on which all is well, but for what a test changes.
type fake struct {
	version, path, note      string
	snapshotter, try, leases error
	ask                      error
	namespaces               []string
	images                   []imageRecord
	swept                    []runtime.Swept
	bottles                  []runtime.Status
}

func (f fake) Version(context.Context) (string, error)              { return f.version, nil }
func (f fake) Snapshotter(context.Context) error                    { return f.snapshotter }
func (f fake) Namespaces(context.Context) ([]string, error)         { return f.namespaces, nil }
func (f fake) Root(context.Context) (string, error)                 { return "/", nil }
func (f fake) Images(context.Context) ([]imageRecord, error)        { return f.images, nil }
func (f fake) PATH() string                                         { return f.path }
func (f fake) Try(context.Context, string) error                    { return f.try }
func (f fake) Runsc(context.Context) (path, note string, err error) { return "/bin/true", f.note, nil }
func (f fake) Ask(context.Context, string, netip.Addr) error        { return f.ask }
func (f fake) Leftovers(context.Context) ([]runtime.Swept, error)   { return f.swept, nil }
func (f fake) Bottles(context.Context) ([]runtime.Status, error)    { return f.bottles, f.leases }

func patient(d daemon, files fstest.MapFS) *Patient {
	return &Patient{
		Config: runtime.Config{Namespace: "carboy", Snapshotter: "overlayfs", Address: "/sock"},
		Build:  "devel", Engine: proxy.Pipelock, ProxyImage: "pipelock.test/p:1",
		files: files, daemon: d, now: func() time.Time { return someday },
		Logins: func() ([]registry.Source, error) { return nil, nil },
	}
}

// programs is a PATH with executables that say nothing.
func programs(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho "+name+" 9\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestChecks(t *testing.T) {
	both := programs(t, "runc", "containerd-shim-runc-v2")
	here := []imageRecord{{"pipelock.test/p:1", someday}}
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for _, c := range []struct {
		name  string
		look  func(context.Context, *Patient) Finding
		d     fake
		files fstest.MapFS
		want  Level
		says  string
	}{
		{"Debian's containerd", containerd, fake{version: "1.6.20~ds1"}, nil, OK, "1.6.20~ds1 at /sock"},
		{"the newest", containerd, fake{version: "v2.4.9"}, nil, OK, "2.4.9"},
		{"too old", containerd, fake{version: "1.6.19"}, nil, Fail, "too old"},
		{"too new", containerd, fake{version: "2.5.0"}, nil, Warn, "newer"},
		{"its own build", containerd, fake{version: "abc"}, nil, Warn, "not the version of a release"},
		{"snapshotter", snapshotter, fake{}, nil, OK, "overlayfs"},
		{"snapshotter that fails", snapshotter, fake{snapshotter: errors.New("not loaded")}, nil, Fail, "not loaded"},
		{"namespace", namespace, fake{namespaces: []string{"carboy"}, images: here}, nil, OK, "images: 1"},
		{"no namespace", namespace, fake{}, nil, OK, "first use"},
		{"runc", runc, fake{path: both}, nil, OK, "runc 9"},
		{"runc that fails", runc, fake{path: both, try: errors.New("no cgroup")}, nil, Fail, "cannot be used: no cgroup"},
		{"no runc", runc, fake{path: programs(t, "containerd-shim-runc-v2")}, nil, Fail, "apt install runc"},
		{"no shim", runc, fake{path: programs(t, "runc")}, nil, Fail, "containerd-shim-runc-v2"},
		{"runsc", runsc, fake{}, nil, OK, "started a sandbox"},
		{"no runsc", runsc, fake{note: "runsc is not installed"}, nil, Warn, "share the kernel"},
		{"pipelock", engine, fake{images: here}, nil, OK, "pipelock.test/p:1"},
		{"no pipelock", engine, fake{}, nil, Warn, "carboy pull pipelock.test/p:1"},
		{"nothing left", leftovers, fake{}, nil, OK, "none"},
		{"dead bottle", leftovers, fake{swept: []runtime.Swept{{Kind: "bottle", Name: "bob"}}}, nil, Warn, "bottle bob"},
		{"leaking", leftovers, fake{bottles: []runtime.Status{{Record: runtime.Record{Name: "bob"}, State: runtime.StateLeaking, Reason: "busy"}}}, nil, Warn, "bob is leaking: busy"},
		{"another layout", leftovers, fake{leases: errors.New("layout 9")}, nil, Warn, "layout 9"},
		{"clock", clock, fake{images: here}, nil, OK, "2027-01-02T03:04:05Z"},
		{"images of tomorrow", clock, fake{images: []imageRecord{{"r", someday.Add(time.Hour)}}}, nil, Warn, "later"},
		{"router", forwarding, fake{}, fstest.MapFS{"proc/sys/net/ipv4/ip_forward": text("1\n")}, OK, "stays so"},
		{"no router", forwarding, fake{}, fstest.MapFS{"proc/sys/net/ipv4/ip_forward": text("0\n")}, OK, "turns it on"},
		{"default route", defaultRoute, fake{}, fstest.MapFS{"proc/net/route": text(route4)}, OK, "default route"},
		{"IPv6 alone", defaultRoute, fake{}, fstest.MapFS{"proc/net/route": text(""), "proc/net/ipv6_route": text(route6)}, Fail, "IPv6 only"},
		{"no route", defaultRoute, fake{}, fstest.MapFS{"proc/net/route": text(""), "proc/net/ipv6_route": text(noRoute6)}, Warn, "no default route"},
		{"cgroups 2", cgroups, fake{}, fstest.MapFS{"sys/fs/cgroup/cgroup.controllers": text("cpu io memory pids\n")}, OK, "version 2"},
		{"cgroups 2 without memory", cgroups, fake{}, fstest.MapFS{"sys/fs/cgroup/cgroup.controllers": text("cpu pids\n")}, Fail, "memory"},
		{"cgroups 1", cgroups, fake{}, fstest.MapFS{"sys/fs/cgroup/memory/x": text(""), "sys/fs/cgroup/pids/x": text(""), "sys/fs/cgroup/cpu/x": text("")}, OK, "version 1"},
		{"cgroups 1 without cpu", cgroups, fake{}, fstest.MapFS{"sys/fs/cgroup/memory/x": text(""), "sys/fs/cgroup/pids/x": text("")}, Warn, "--cpus"},
		{"no seccomp", kernel, fake{}, fstest.MapFS{}, Fail, "seccomp"},
		{"kernel", kernel, fake{}, fstest.MapFS{"proc/sys/kernel/seccomp/actions_avail": text("errno"), "proc/filesystems": text("nodev\toverlay\n")}, OK, "Linux"},
		{"no overlay", kernel, fake{}, fstest.MapFS{"proc/sys/kernel/seccomp/actions_avail": text("errno"), "proc/filesystems": text("\text4\n")}, Warn, "modprobe"},
		{"no module", security, fake{}, fstest.MapFS{}, OK, "neither"},
		{"AppArmor", security, fake{}, fstest.MapFS{"sys/module/apparmor/parameters/enabled": text("Y\n"), "usr/sbin/apparmor_parser": text("")}, OK, "carboy-default"},
		{"AppArmor without a parser", security, fake{}, fstest.MapFS{"sys/module/apparmor/parameters/enabled": text("Y\n")}, Warn, "apparmor_parser"},
		{"SELinux", security, fake{}, fstest.MapFS{"sys/fs/selinux/enforce": text("1")}, OK, "enforces"},
		{"SELinux permissive", security, fake{}, fstest.MapFS{"sys/fs/selinux/enforce": text("0")}, Warn, "permissive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.look(t.Context(), patient(c.d, c.files))
			if f.Level != c.want || !strings.Contains(f.Found+" "+f.Out, c.says) {
				t.Errorf("got %+v, want %s with %q", f, c.want, c.says)
			}
		})
	}
}

const (
	route4   = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
	route6   = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000064 00000001 00000000 00000003     eth0\n"
	noRoute6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n"
)

// TestWithoutRoot: what takes root or containerd is never taken for sound.
func TestWithoutRoot(t *testing.T) {
	sound := func(context.Context, *Patient) Finding { return ok("sound") }
	p := patient(fake{}, nil)
	silent := patient(nil, nil)
	for _, c := range []struct {
		check check
		p     *Patient
		root  bool
		want  Level
	}{
		{check{look: sound, root: true}, p, false, Warn},
		{check{look: sound, root: true}, p, true, OK},
		{check{look: sound, daemon: true}, silent, true, Warn},
		{check{look: sound, daemon: true}, p, true, OK},
		{check{look: sound}, silent, false, OK},
	} {
		if f := c.check.run(t.Context(), c.p, c.root); f.Level != c.want {
			t.Errorf("%+v: %+v, want %s", c.check, f, c.want)
		}
	}
	silent.daemonErr = errors.Join(errdefs.ErrPermissionDenied)
	if f := containerd(t.Context(), silent); f.Level != Warn {
		t.Errorf("a socket of root's: %+v", f)
	}
}

func TestSpace(t *testing.T) {
	of := func(free uint64) unix.Statfs_t {
		return unix.Statfs_t{Bsize: 1 << 20, Bavail: free, Blocks: 10000, Files: 1 << 20, Ffree: 1 << 19}
	}
	full := of(9000)
	full.Ffree = 10
	for want, st := range map[Level][]unix.Statfs_t{OK: {of(3000)}, Warn: {of(1000), full}, Fail: {of(100)}} {
		for _, s := range st {
			if f := space("/x", s); f.Level != want {
				t.Errorf("%+v, want %s", f, want)
			}
		}
	}
}

func TestBarriers(t *testing.T) {
	docker := uplink.Barrier{Chain: "DOCKER-USER", Owner: "Docker"}
	owned := uplink.Barrier{Chain: "inet mine forward", Owner: "the operator's nftables", Shut: "its table is its owner's alone"}
	for want, list := range map[Level][]uplink.Barrier{OK: {docker}, Warn: {docker, owned}} {
		if f := judgeBarriers(list, patient(fake{}, nil)); f.Level != want || !strings.Contains(f.Found, "Docker drops") {
			t.Errorf("%+v, want %s", f, want)
		}
	}
}

func TestWay(t *testing.T) {
	none := errors.New("no answer")
	for _, c := range []struct {
		host, bottle error
		want         Level
	}{{nil, nil, OK}, {nil, none, Fail}, {none, none, Warn}} {
		p := patient(fake{ask: c.bottle}, nil)
		p.DNS, p.PluginDirs = []netip.Addr{netip.MustParseAddr("192.0.2.53")}, []string{programs(t, "ptp", "host-local")}
		p.ask = func(context.Context, netip.Addr) error { return c.host }
		if f := way(t.Context(), p); f.Level != c.want {
			t.Errorf("host %v, bottle %v: %+v, want %s", c.host, c.bottle, f, c.want)
		}
		if p.PluginDirs = nil; way(t.Context(), p).Level != Warn {
			t.Error("no warning without plugins")
		}
	}
}

func TestReport(t *testing.T) {
	r := Report{Level: OK}
	for _, l := range []Level{OK, Warn, Fail, Warn, OK} {
		r.Level = worse(r.Level, l)
	}
	if r.Level != Fail || r.Status() != 2 || (Report{Level: Warn}).Status() != 1 || (Report{Level: OK}).Status() != 0 {
		t.Errorf("level %s, status %d", r.Level, r.Status())
	}
	hostile := check{name: "c", look: func(context.Context, *Patient) Finding { return warn("a\x1b[2Jb\nc", "d\u202e") }}
	r.Checks = []Finding{hostile.run(t.Context(), patient(nil, nil), true)}
	var plain, colour strings.Builder
	if err := errors.Join(r.Print(&plain, false), r.Print(&colour, true)); err != nil {
		t.Fatal(err)
	}
	if want := "warn  c  a\\x1b[2Jb; c\n         -> d\\u202e\n"; plain.String() != want {
		t.Errorf("%q, want %q", plain.String(), want)
	}
	if !strings.HasPrefix(colour.String(), "\x1b[33mwarn\x1b[0m") || strings.Count(colour.String(), "\x1b") != 2 {
		t.Errorf("in colour: %q", colour.String())
	}
}
