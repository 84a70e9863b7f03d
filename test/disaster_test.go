package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mounted is a small file system in memory over a directory, until the test's
// end.
func mounted(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
}

// fill writes a file until there is no room.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10, 1} { // to the last page
		b := make([]byte, size)
		for err == nil {
			_, err = f.Write(b)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
}

// TestFullState: without room below /run nothing starts, and nothing is left. A
// bottle that runs when it gets full ends as ever.
func TestFullState(t *testing.T) {
	r := newRig(t, 1)
	mounted(t, "/run/carboy", "256k")
	l := r.start(t, "--name", "before")
	full := filepath.Join("/run/carboy", "full")
	fill(t, full)
	o := r.run(t, actor()...)
	if o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "no space left on device") || len(r.Arrivals("internet/http")) > 0 {
		t.Errorf("%v", o)
	}
	if list := r.ls(t); len(list) != 1 || list[0].Name != "before" {
		t.Errorf("left: %+v", list)
	}
	if o := l.exec(t, "echo", "lives"); o.stdout != "lives\n" {
		t.Errorf("the live bottle: %v", o)
	}
	l.stop(t)
	if code := l.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("carboy ended with %d:\n%s", code, l.stderr)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	r.sweep(t, "full")
	r.checkRan(t, r.run(t, actor()...))
	if err := unix.Unmount("/run/carboy", 0); err != nil { // fails for whatever is left open
		t.Error(err)
	}
}

// TestFewDescriptors: with too few of them nothing starts by halves, and with as
// many as are asked for all of it does.
func TestFewDescriptors(t *testing.T) {
	r := newRig(t, 0)
	for _, n := range []int{8, 12, 16, 24, 127, 128} {
		c := r.command(t, actor()...)
		limited := exec.Command("sh", append([]string{"-c", "ulimit -n " + strconv.Itoa(n) + `; exec "$@"`, "sh"}, c.Args...)...)
		limited.Env = c.Env
		o := finish(t, limited)
		switch {
		case n == 128:
			r.checkRan(t, o)
		case o.code == 0 || o.stdout != "" || len(r.Arrivals("internet/http")) > 0:
			t.Errorf("with %d: the agent ran: %v", n, o)
		case n > 16 && !strings.Contains(o.stderr, "raise it (ulimit -n"):
			t.Errorf("with %d: %v", n, o)
		}
		r.sweep(t, fmt.Sprintf("with %d descriptors", n))
		r.checkClean(t)
	}
}

// TestStateUnmounted: a live bottle whose run directory went away is nobody's to
// remove, and leaves nothing at its end.
func TestStateUnmounted(t *testing.T) {
	r := newRig(t, 1)
	mounted(t, "/run/carboy", "8m")
	l := r.start(t)
	i := l.inspect(t)
	if err := unix.Unmount("/run/carboy", unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if o := r.run(t, "gc"); strings.Contains(o.stdout, l.name) {
		t.Errorf("gc: %v", o)
	}
	if inside := processesOf(t, i.Instance); len(inside) < 2 {
		t.Errorf("its processes are %v", inside)
	}
	l.stop(t)
	r.sweep(t, "unmounted")
	r.checkClean(t)
}

// TestContainerdHangs: a bottle lives; what ends or begins meanwhile goes on when
// containerd does.
func TestContainerdHangs(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		resume := sync.OnceFunc(func() {
			if err := r.containerd.Resume(); err != nil {
				t.Error(err)
			}
		})
		k, l := r.talk(t), r.start(t)
		i := k.inspect(t)
		if err := r.containerd.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(resume)
		k.answers(t, "without")
		if o := r.run(t, "ls"); o.code != 1 || !strings.Contains(o.stderr, "does not answer within") || !strings.Contains(o.stderr, r.containerd.Address) {
			t.Errorf("ls: %v", o)
		}
		p := newPiped(t, r.command(t, actor()...))
		_ = k.stdin.Close()
		eventually(t, "the end of the agent's command", func() bool { return len(hostTool(t, "sh", "-c", fmt.Sprintf("pgrep -P %d || true", i.PIDs[0]))) == 0 })
		resume()
		if code, _ := k.end(t); code != 7 {
			t.Errorf("carboy ended with %d", code)
		}
		p.wait(t)
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("the start beside it: %d, %s", code, p.stderr.String())
		}
		r.Reset()
		l.stop(t)
		r.checkClean(t)
	})
}

// killPids sends SIGKILL to what is still there.
func killPids(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
}

// TestKilledInPairs ends two of a background bottle's processes at once, one
// of them containerd perhaps.
func TestKilledInPairs(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		t.Cleanup(func() { r.restart(t) })
		const containerd = "containerd"
		parts := []string{"supervisor", "shim", "agent", "proxy", containerd}
		for a := range parts {
			for b := range parts[:a] {
				pair := []string{parts[a], parts[b]}
				runtime := runtimes[(a+b)%2]
				name := strings.TrimSpace(r.mustRun(t, bottle("-d", "--runtime", runtime, "--", "sleep", "1000")...))
				i := (&live{rig: r, name: name}).inspect(t)
				pids := map[string]int{"supervisor": r.ls(t)[0].PID, "shim": parent(t, i.PIDs[1]), "agent": i.PIDs[0], "proxy": i.PIDs[1]}
				for _, part := range pair {
					if part != containerd {
						killPids(t, pids[part])
					} else if err := r.containerd.Kill(); err != nil {
						t.Fatal(err)
					}
				}
				r.restart(t)
				what := strings.Join(pair, " and ")
				if o := r.run(t, "rm", "-f", name); o.code != 0 && !strings.Contains(o.stderr, "no bottle named") {
					t.Errorf("%s, %s: rm: %v", runtime, what, o)
				}
				r.sweep(t, what)
				if diff, err := r.WaitClean(t.Context(), r.before); err != nil || diff != "" {
					t.Fatalf("%s, %s: %v\n%s", runtime, what, err, diff)
				}
			}
		}
	})
}

// TestReboot: what containerd's database remembers of the time before is removed,
// beside new bottles that have the same addresses.
func TestReboot(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		old := r.detach(t, "--name", "old", "--", "sleep", "1000")
		i := (&live{rig: r, name: old}).inspect(t)
		reboot(t, r, i.PIDs, r.ls(t)[0].PID)

		l := r.start(t, "--name", "new", "--allow", "allowed.test") // sweeps, too
		eventually(t, "the old one is swept", func() bool { r.sweep(t, "reboot"); return len(r.ls(t)) == 1 })
		if o := l.exec(t, "probe", "http", "http://allowed.test/"); !attempts(t, o.stdout)[0].OK {
			t.Errorf("the new bottle's way out: %v", o)
		}
		past := r.ls(t, "-a")
		if len(past) < 2 || past[1].Name != "old" || past[1].State != "killed" {
			t.Errorf("ls -a: %+v", past)
		}
		l.stop(t)
		r.run(t, bottle("--runtime", "runsc", "--", "true")...) // the probe's result went with /run
		if err := unix.Unmount(bootID, 0); err != nil {
			t.Error(err)
		}
		r.checkClean(t)
	})
}

const bootID = "/proc/sys/kernel/random/boot_id"

// reboot ends everything that does not outlive one, and changes the boot id.
// The supervisor goes first: it must not see the others go.
func reboot(t *testing.T, r *rig, tasks []int, supervisor int) {
	t.Helper()
	shim := parent(t, tasks[1])
	killPids(t, supervisor)
	if err := r.containerd.Kill(); err != nil {
		t.Fatal(err)
	}
	killPids(t, append(tasks, shim)...)
	for _, pid := range append(tasks, supervisor, shim) {
		eventually(t, "the end of "+strconv.Itoa(pid), func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); return err != nil })
	}
	hostTool(t, "sh", "-c", `for m in $(awk '$2 ~ "^`+r.containerd.State+`/|^/run/carboy" {print $2}' /proc/mounts); do umount -l "$m"; done
nft delete table ip carboy
rmdir $(find /sys/fs/cgroup -maxdepth 2 -name "carboy-*" -type d) 2>/dev/null
sysctl -qw net.ipv4.ip_forward=0 || true`)
	for _, dir := range []string{"/run/carboy", r.containerd.State, "/run/runc", "/run/runsc", "/run/containerd"} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "boot_id")
	write(t, file, "00000000-0000-4000-8000-000000000000\n", 0o644)
	if err := unix.Mount(file, bootID, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bootID, 0) })
	if err := r.containerd.Start(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// TestCycles: what comes and goes leaves nothing that grows.
func TestCycles(t *testing.T) {
	r := newRig(t, 1)
	cycles, warm := 20, 5
	if *soak {
		cycles = 300
	}
	var before int
	for i := range cycles {
		if i == warm {
			before = resident(t, r.containerd.Pid())
		}
		if o := r.run(t, append(bottle("--runtime", runtimes[i%2]), "--", "true")...); o.code != 0 {
			t.Fatalf("cycle %d: %v", i, o)
		}
	}
	r.checkClean(t)
	const most = 16 << 10 // of a garbage-collected daemon
	if after := resident(t, r.containerd.Pid()); after > before+most {
		t.Errorf("containerd has %d KiB after %d bottles, %d after %d", after, cycles, before, warm)
	}
}

// resident is in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	fields := strings.Fields(hostTool(t, "grep", "VmRSS", fmt.Sprintf("/proc/%d/status", pid)))
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// many is how many bottles are up at once.
const many = 64

// TestMany starts them all by parallel commands: each has an address of its own,
// and the seal.
func TestMany(t *testing.T) {
	r := newRig(t, 1)
	start := time.Now()
	names := make(chan string, many)
	for range many {
		c := r.command(t, append(bottle("-d", "--memory", "64MiB", "--allow", "allowed.test"), "--", "sh", "-c", "probe http http://denied.test/; probe http http://allowed.test/; exec sleep 1000")...)
		go func() {
			o := finish(t, c)
			if o.code != 0 {
				t.Errorf("%v", o)
			}
			names <- strings.TrimSpace(o.stdout)
		}()
	}
	all := map[string]bool{}
	for range many {
		all[<-names] = true
	}
	t.Logf("%d bottles after %v", many, time.Since(start))
	if len(all) != many || len(r.ls(t)) != many {
		t.Errorf("%d names, %d listed", len(all), len(r.ls(t)))
	}
	t.Cleanup(func() {
		r.run(t, "stop", "-t", "0", "--all")
		r.sweep(t, "many")
	})
	addresses := map[string]string{}
	for name := range all {
		proxy := (&live{rig: r, name: name}).inspect(t).PIDs[1]
		address := hostTool(t, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", proxy), "ip", "-o", "-4", "address", "show", "dev", "eth0")
		if other := addresses[address]; other != "" {
			t.Errorf("%s and %s have the same address: %s", name, other, address)
		}
		addresses[address] = name
		eventually(t, "both probes of "+name, func() bool { return strings.Count(r.mustRun(t, "logs", name), "\n") == 2 })
		got := attempts(t, r.mustRun(t, "logs", name))
		if got[0].OK || !got[1].OK {
			t.Errorf("%s: %v", name, got)
		}
	}
	start = time.Now()
	r.mustRun(t, "stop", "-t", "0", "--all")
	t.Logf("ended after %v", time.Since(start))
	r.checkClean(t)
}
