package vm

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDoctor: the host suits bottles, with version 2 of control groups.
func TestDoctor(t *testing.T) {
	rig(t)
	var report struct {
		Checks []struct{ Check, Level, Found string }
	}
	if err := json.Unmarshal([]byte(do(t, "carboy doctor --json || [ $? = 1 ]")), &report); err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		if c.Level == "fail" || c.Check == "cgroups" && (c.Level != "ok" || !strings.HasPrefix(c.Found, "version 2 ")) {
			t.Errorf("%+v", c)
		}
	}
}

// TestStartRestartStop: a service is up when its agent runs, and gone within
// bounds.
func TestStartRestartStop(t *testing.T) {
	rig(t)
	end(t, "carboy@stays")
	do(t, "systemctl start carboy@stays")
	first := show(t, "carboy@stays")
	if state := bottles(t)["stays"]; first.ActiveState != "active" || first.StatusText != "stays runs" || state != "running" {
		t.Fatalf("started: %+v, bottle %q", first, state)
	}
	if !said(t, "carboy@stays", "it runs") {
		t.Error("the agent is not in the journal")
	}
	if score := do(t, "cat /proc/$(pgrep -x sleep)/oom_score_adj"); score != "500\n" {
		t.Errorf("the agent's OOM score is %s", score)
	}
	do(t, "systemctl restart carboy@stays")
	second := show(t, "carboy@stays")
	if second.ActiveState != "active" || second.InvocationID == first.InvocationID || second.MainPID == first.MainPID {
		t.Errorf("restarted: %+v, before %+v", second, first)
	}
	start := time.Now()
	do(t, "systemctl stop carboy@stays")
	if took := time.Since(start); took > time.Minute {
		t.Errorf("to stop took %v", took)
	}
	if u := show(t, "carboy@stays"); u.ActiveState != "inactive" || u.Result != "success" {
		t.Errorf("stopped: %+v", u)
	}
}

// TestFails: a service has the agent's status, and what it said is logged with
// its name.
func TestFails(t *testing.T) {
	rig(t)
	end(t, "carboy@fails")
	do(t, "systemctl start carboy@fails")
	eventually(t, "the service fails", func() bool { return show(t, "carboy@fails").ActiveState == "failed" })
	if u := show(t, "carboy@fails"); u.Result != "exit-code" || u.ExecMainStatus != "7" {
		t.Errorf("%+v", u)
	}
	end(t, "carboy@nobody")
	do(t, "! systemctl start carboy@nobody") // never ready
	if u := show(t, "carboy@nobody"); u.ActiveState != "failed" || u.ExecMainStatus != "2" {
		t.Errorf("without an agent: %+v", u)
	}
}

// TestRestarts: systemd starts an agent that fails again, and the name is free
// each time.
func TestRestarts(t *testing.T) {
	rig(t)
	end(t, "carboy@fails")
	dropIn(t, "fails", "Restart=on-failure\nRestartSec=100ms")
	do(t, "systemctl start carboy@fails")
	first := show(t, "carboy@fails").InvocationID
	eventually(t, "the agent runs again", func() bool {
		return show(t, "carboy@fails").InvocationID != first && said(t, "carboy@fails", "it fails")
	})
	if e := find(journal(t, "-u carboy@fails"), "carboy: a bottle named"); e.Message != "" {
		t.Errorf("a bottle was in the way of the next: %s", e.Message)
	}
}

// TestTimeOut: carboy's limit of time ends the agent, and systemd's watchdog a
// carboy that hangs.
func TestTimeOut(t *testing.T) {
	rig(t)
	end(t, "carboy@stays")
	dropIn(t, "stays", "ExecStart=\nExecStart=/usr/local/bin/carboy run --yes --name %%i --timeout 2s %%i")
	do(t, "systemctl start carboy@stays")
	eventually(t, "the time ends", func() bool { return show(t, "carboy@stays").ActiveState == "failed" })
	if u := show(t, "carboy@stays"); u.Result != "exit-code" || u.ExecMainStatus != "124" {
		t.Errorf("%+v", u)
	}
	end(t, "carboy@reads")
	dropIn(t, "reads", "WatchdogSec=10")
	do(t, "systemctl start carboy@reads && kill -STOP $(systemctl show -P MainPID carboy@reads)")
	eventually(t, "the watchdog ends it", func() bool { return show(t, "carboy@reads").ActiveState == "failed" })
	if u := show(t, "carboy@reads"); u.Result != "watchdog" {
		t.Errorf("%+v", u)
	}
}

// TestPrintedUnit: a unit of `carboy generate systemd` passes a credential on.
func TestPrintedUnit(t *testing.T) {
	rig(t)
	end(t, "carboy-reads")
	do(t, "carboy generate systemd reads >/run/systemd/system/carboy-reads.service && systemctl daemon-reload && systemctl start carboy-reads")
	want := fmt.Sprintf("%x", sha256.Sum256([]byte("a token of the machine")))
	eventually(t, "the agent has its credential", func() bool { return said(t, "carboy-reads", want) })
}
