package vm

import (
	"strings"
	"testing"
)

// TestLimitsOfUnit: a limit in a drop-in holds the agent, who does what it did
// not let him as soon as it is gone.
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
			if inside := do(t, "cat $(find /sys/fs/cgroup"+show(t, service).ControlGroup+" -name '*-a')/cgroup.procs"); len(strings.Fields(inside)) < 2 {
				t.Errorf("in the agent's group below the unit's are %q", inside)
			}
			do(t, "systemctl stop "+service+"")
			dropIn(t, c.agent, c.limit)
			do(t, "systemctl start "+service)
			eventually(t, "the agent fails", func() bool { return show(t, service).ActiveState == "failed" })
			if u := show(t, service); u.ExecMainStatus != c.status || said(t, service, c.done) {
				t.Errorf("it got through: %+v", u)
			}
		})
	}
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
