package vm

import (
	"strings"
	"testing"
)

// TestLimitsOfUnit: a limit in a drop-in holds the agent, which gets through
// without it.
func TestLimitsOfUnit(t *testing.T) {
	rig(t)
	for _, c := range []struct{ agent, limit, done, status string }{
		{"eats", "MemoryMax=140M\nMemorySwapMax=0", "it ate", "137"},
		{"forks", "TasksMax=150", "it forked", "2"},
	} {
		t.Run(c.agent, func(t *testing.T) {
			service := "carboy@" + c.agent
			end(t, service)
			do(t, "systemctl start "+service)
			eventually(t, "the agent is through", func() bool { return said(t, service, c.done) })
			if inside := members(t, service); len(inside) < 2 { // carboy-init and what it runs
				t.Errorf("in the agent's group below the unit's are %q", inside)
			}
			do(t, "systemctl stop "+service)
			dropIn(t, c.agent, c.limit)
			do(t, "systemctl start "+service)
			eventually(t, "the agent fails", func() bool { return show(t, service).ActiveState == "failed" })
			if u := show(t, service); u.ExecMainStatus != c.status || said(t, service, c.done) {
				t.Errorf("it got through: %+v", u)
			}
		})
	}
}

// TestSandboxInUnit: under runsc the agent is in the unit's group as well.
func TestSandboxInUnit(t *testing.T) {
	rig(t)
	if do(t, "command -v runsc || true") == "" {
		t.Skip("SKIPPED: no runsc: sudo make deps")
	}
	end(t, "carboy@stays")
	dropIn(t, "stays", "ExecStart=\nExecStart=/usr/local/bin/carboy run --yes --name %%i --runtime runsc %%i")
	do(t, "systemctl start carboy@stays")
	if inside := members(t, "carboy@stays"); len(inside) == 0 {
		t.Error("no sandbox is in the agent's group below the unit's")
	}
}

// members are the processes in the agent's group, below that of its unit.
func members(t *testing.T, service string) []string {
	t.Helper()
	return strings.Fields(do(t, "cat $(find /sys/fs/cgroup"+show(t, service).ControlGroup+" -name '*-a')/cgroup.procs"))
}

// TestBesideUnit: a bottle in the background is not the unit's whose caller it
// was.
func TestBesideUnit(t *testing.T) {
	rig(t)
	t.Cleanup(func() { do(t, "carboy rm -f stays") })
	do(t, "systemd-run --quiet --wait -p Delegate=yes /usr/local/bin/carboy run -d --yes stays")
	if state := bottles(t)["stays"]; state != "running" {
		t.Errorf("after its caller's unit it is %q", state)
	}
}
