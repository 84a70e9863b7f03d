package verify

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"carboy/runtime/verify/inside"
)

func TestRun(t *testing.T) {
	look := func(seen string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return seen, err }
	}
	probes := []Probe{
		{"good", look("all of it", nil)},
		{"bad", look("", errors.New("a hole\nand \x1b[2J more"))},
		{"open", look("", errors.Join(unknown("no control")))},
	}
	found := Run(t.Context(), probes)
	want := Findings{{"good", Pass, "all of it"}, {"bad", Fail, `a hole; and \x1b[2J more`}, {"open", Unknown, "no control"}}
	if !slices.Equal(found, want) {
		t.Errorf("%q", found)
	}
	if text := found.Err().Error(); text != "  bad: FAIL: a hole; and \\x1b[2J more\n  open: UNKNOWN: no control" {
		t.Errorf("%q", text)
	}
	for want, some := range map[Result]Findings{Pass: found[:1], Fail: found, Unknown: {found[0], found[2], found[0]}} {
		if got := some.Worst(); got != want {
			t.Errorf("%v: %s, want %s", some, got, want)
		}
	}
	long := Run(t.Context(), []Probe{{"long", look("", errors.New(strings.Repeat("\x1b", mostSeen)))}})
	if seen := long[0].Seen; len(seen) != mostSeen+len("...") || !strings.HasPrefix(seen, `\x1b\x1b`) {
		t.Errorf("of much that an agent said %d bytes are shown", len(seen))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if f := Run(ended, probes[1:2])[0]; f.Result != Unknown {
		t.Errorf("of a look that was cut short: %v", f)
	}
}

var target = netip.MustParseAddrPort("192.0.2.1:9")

// sound is what a process says in a bottle with nothing wrong.
func sound() inside.Account {
	return inside.Account{
		Attempts: []inside.Attempt{{To: target, Protocol: "tcp", Error: "no answer"}},
		Raw:      []inside.Outcome{{What: "raw socket", Error: "not permitted"}},
		Denied:   inside.Tunnel{Said: true, Error: "403"}, Allowed: inside.Tunnel{Open: true},
		UID: 1000, NoNewPrivs: true, Seccomp: 2, Processes: []inside.Process{{PID: 1, Has: 1 << unix.CAP_KILL}},
		Links: []string{"eth0", "lo"}, Routes: []netip.Prefix{netip.MustParsePrefix("10.66.0.0/30")},
	}
}

func judged(t *testing.T, a inside.Account, err error, heard string, heardErr error) map[string]Result {
	t.Helper()
	i := Insider{
		Link: netip.MustParsePrefix("10.66.0.0/30"), Allowed: "good.test:443", Account: func() (inside.Account, error) { return a, err },
		Groups: []Group{{Name: "host", Targets: []netip.AddrPort{target}, Arrived: func() (string, error) { return heard, heardErr }}},
	}
	open := map[string]Result{}
	for _, f := range Run(t.Context(), i.Probes()) {
		if f.Result != Pass {
			open[f.Probe] = f.Result
		}
	}
	return open
}

// TestInsider changes one thing that a process says, and wants the probe of that.
func TestInsider(t *testing.T) {
	if open := judged(t, sound(), nil, "", nil); len(open) > 0 {
		t.Fatalf("a sound bottle: %v", open)
	}
	for name, tc := range map[string]struct {
		change func(*inside.Account)
		probe  string
		result Result
	}{
		"root":          {func(a *inside.Account) { a.UID = 0 }, "agent-rights", Fail},
		"privileges":    {func(a *inside.Account) { a.NoNewPrivs = false }, "agent-rights", Fail},
		"no filter":     {func(a *inside.Account) { a.Seccomp = 0 }, "agent-rights", Fail},
		"capability":    {func(a *inside.Account) { a.Processes[0].Has |= 1 << unix.CAP_NET_RAW }, "agent-rights", Fail},
		"bounding":      {func(a *inside.Account) { a.Processes[0].Bounding = 1 << unix.CAP_CHOWN }, "agent-rights", Fail},
		"no process":    {func(a *inside.Account) { a.Processes = nil }, "agent-rights", Unknown},
		"link":          {func(a *inside.Account) { a.Links = append(a.Links, "more0") }, "agent-network", Fail},
		"no link":       {func(a *inside.Account) { a.Links = nil }, "agent-network", Fail},
		"default route": {func(a *inside.Account) { a.Routes = append(a.Routes, netip.MustParsePrefix("0.0.0.0/0")) }, "agent-network", Fail},
		"no route":      {func(a *inside.Account) { a.Routes = append(a.Routes, netip.Prefix{}) }, "agent-network", Fail},
		"ipv6":          {func(a *inside.Account) { a.IPv6 = []string{"eth0 fe80"} }, "agent-network", Fail},
		"raw":           {func(a *inside.Account) { a.Raw[0].Error = "" }, "agent-raw", Fail},
		"no raw":        {func(a *inside.Account) { a.Raw = nil }, "agent-raw", Unknown},
		"socket":        {func(a *inside.Account) { a.HostSockets = []string{"/run/x.sock"} }, "agent-sockets", Fail},
		"switch":        {func(a *inside.Account) { a.Writable = []string{"/proc/sysrq-trigger"} }, "agent-kernel", Fail},
		"device":        {func(a *inside.Account) { a.Devices = []string{"/dev/sda"} }, "agent-kernel", Fail},
		"resolver":      {func(a *inside.Account) { a.Resolvers = []string{"192.0.2.53"} }, "agent-resolver", Fail},
		"tunnel":        {func(a *inside.Account) { a.Denied = inside.Tunnel{Open: true} }, "agent-denied", Fail},
		"no tunnel":     {func(a *inside.Account) { a.Allowed = inside.Tunnel{Said: true} }, "agent-allowed", Unknown},
		"reached":       {func(a *inside.Account) { a.Attempts[0].Reached = true }, "agent-to-host", Fail},
		"another tried": {func(a *inside.Account) { a.Attempts[0].To = netip.AddrPortFrom(target.Addr(), 10) }, "agent-to-host", Unknown},
		"not tried":     {func(a *inside.Account) { a.Attempts = nil }, "agent-to-host", Unknown},
	} {
		a := sound()
		tc.change(&a)
		if open := judged(t, a, nil, "", nil); len(open) != 1 || open[tc.probe] != tc.result {
			t.Errorf("%s: %v, want %s %s", name, open, tc.probe, tc.result)
		}
	}
}

func TestInsiderWithoutControl(t *testing.T) {
	silent := sound()
	silent.Denied = inside.Tunnel{Error: "no answer"}
	if open := judged(t, silent, nil, "", nil); open["agent-denied"] != Unknown || open["agent-to-host"] != Unknown || len(open) != 2 {
		t.Errorf("a proxy that says nothing: %v", open)
	}
	blind := sound()
	blind.Errors = []string{"/proc: not permitted"}
	if open := judged(t, blind, nil, "", nil); open["agent-sockets"] != Unknown || open["agent-kernel"] != Unknown || open["agent-resolver"] != Unknown {
		t.Errorf("one that cannot look: %v", open)
	}
	for _, result := range judged(t, sound(), errors.New("it was killed"), "", nil) {
		if result != Unknown {
			t.Errorf("none: %s", result)
		}
	}
	if open := judged(t, sound(), nil, "2 arrivals", nil); open["agent-to-host"] != Fail {
		t.Errorf("an arrival: %v", open)
	}
	if open := judged(t, sound(), nil, "", errors.New("deaf")); open["agent-to-host"] != Unknown {
		t.Errorf("a deaf listener: %v", open)
	}
}

func TestSockets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tcp")
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100420A:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 00000000:270F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0100420A:22B8 0200420A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3
   3: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := bound(file, "0A")
	want := []netip.AddrPort{netip.MustParseAddrPort("10.66.0.1:8888"), netip.MustParseAddrPort("0.0.0.0:9999"), netip.MustParseAddrPort("[::1]:22")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "0100420A", "xx:22", "0100:22", "0100420A:123456"} {
		if at, err := socketAddr(bad); err == nil {
			t.Errorf("%q is %v", bad, at)
		}
	}
}

// TestRights: what the kernel does not say is no proof.
func TestRights(t *testing.T) {
	s := status{pid: 1, values: map[string]string{"CapEff": "00000000000000e1"}}
	if checkRights(1, s.has(), 0, false) == nil {
		t.Error("without all sets")
	}
	err := checkRights(7, 1<<unix.CAP_NET_RAW|1<<unix.CAP_KILL, 1<<63, false)
	if err == nil || !strings.Contains(err.Error(), "process 7 has, or can get, CAP_NET_RAW capabilities 0x8000000000000000") {
		t.Errorf("%v", err)
	}
}

func TestSpecifiedMounts(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "hosts"), filepath.Join(t.TempDir(), "x")
	for _, path := range []string{file, other} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c := Container{Dir: dir, Init: other}
	for source, good := range map[string]bool{file: true, other: true, fifo: false, "/etc/hosts": false, dir + "/../" + filepath.Base(dir) + "x/y": false} {
		if err := c.checkSource(specs.Mount{Source: source, Destination: "/x", Options: []string{"rbind"}}); (err == nil) != good {
			t.Errorf("%s: %v", source, err)
		}
	}
	if err := c.checkSource(specs.Mount{Type: "tmpfs", Source: "tmpfs"}); err != nil {
		t.Errorf("a tmpfs: %v", err)
	}
}

func TestSpecifiedDevices(t *testing.T) {
	none, all := specs.LinuxDeviceCgroup{Access: "rwm"}, specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}
	for _, tt := range []struct {
		rules []specs.LinuxDeviceCgroup
		sound bool
	}{
		{[]specs.LinuxDeviceCgroup{none}, true},
		{[]specs.LinuxDeviceCgroup{none, all}, false},
		{[]specs.LinuxDeviceCgroup{all}, false},
		{nil, false},
	} {
		c := Container{Spec: &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{Devices: tt.rules}}}}
		if err := c.devices(); (err == nil) != tt.sound {
			t.Errorf("%+v: %v", tt.rules, err)
		}
	}
}
