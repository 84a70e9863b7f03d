package test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// sampled is a line of `carboy stats --json`.
type sampled struct {
	Name           string
	CPU            time.Duration
	Memory, Limit  int64
	PIDs           int64
	Received, Sent uint64
	CPUPercent     float64
}

func (r *rig) stats(t *testing.T, names ...string) (list []sampled) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.mustRun(t, append([]string{"stats", "--json"}, names...)...)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestLook: what a bottle does and uses can be seen, under each runtime.
func TestLook(t *testing.T) {
	onEachRuntime(t, testLook)
}

func testLook(t *testing.T, r *rig, runtime string) {
	idle := r.start(t, "--name", "idle", "--runtime", runtime)
	const busyLoop = `probe http http://allowed.test/bytes/1000000 >/dev/null; echo ready; exec sh -c 'while :; do :; done' "$(printf '\033[31mred')"`
	busy := r.detach(t, "--name", "busy", "--runtime", runtime, "--memory", "256MiB", "--allow", "allowed.test", "--", "sh", "-c", busyLoop)
	eventually(t, "the agent is busy", func() bool { return r.mustRun(t, "logs", busy) == "ready\n" })

	list := r.stats(t)
	if len(list) != 2 || list[0].Name != "busy" || list[1].Name != "idle" {
		t.Fatalf("%+v", list)
	}
	b, i := list[0], list[1]
	if b.CPUPercent < 20 || b.CPUPercent > 250 || b.CPU <= 0 || i.CPUPercent > b.CPUPercent/2 {
		t.Errorf("CPU: busy %+v, idle %+v", b, i)
	}
	if b.Received < 5e4 || b.Received > 2e6 || b.Sent == 0 || i.Received > 5e3 {
		t.Errorf("network: busy %+v, idle %+v", b, i)
	}
	if b.Limit != 256<<20 || b.Memory < 1<<20 || b.PIDs < 4 {
		t.Errorf("limits: %+v", b)
	}
	if got := r.stats(t, "idle"); len(got) != 1 || got[0].Name != "idle" {
		t.Errorf("one by name: %+v", got)
	}
	if o := r.run(t, "stats", "nobody"); o.code != 1 || !strings.Contains(o.stderr, "no bottle named nobody") {
		t.Errorf("%v", o)
	}
	table := r.mustRun(t, "stats")
	if !strings.HasPrefix(table, "NAME") || strings.Count(table, "\n") != 3 {
		t.Errorf("table: %q", table)
	}

	top := r.mustRun(t, "top", busy)
	if !strings.Contains(top, "while :; do :; done") || strings.Contains(top, "\x1b") || !strings.Contains(top, "[31mred") || !strings.HasPrefix(top, "PID") {
		t.Errorf("top: %q", top)
	}
	var processes []struct {
		PID, UID int
		CPU      time.Duration
		Command  string
	}
	if err := json.Unmarshal([]byte(r.mustRun(t, "ps", "--json", busy)), &processes); err != nil || len(processes) < 2 || processes[0].PID != 1 {
		t.Errorf("ps: %+v, %v", processes, err)
	}
	if last := processes[len(processes)-1]; last.UID != 1000 || last.CPU == 0 {
		t.Errorf("ps: %+v", processes)
	}

	r.mustRun(t, "kill", busy)
	eventually(t, "the end of the busy one", func() bool { return len(r.ls(t)) == 1 })
	idle.stop(t)
	past := r.ls(t, "-a")
	if len(past) < 2 || past[0].Name != "busy" || past[0].State != "exited 137" || *past[0].ExitCode != 137 || past[1].Name != "idle" || past[1].State != "exited 0" {
		t.Errorf("ls -a: %+v", past)
	}
	if got := r.ls(t); len(got) != 0 {
		t.Errorf("ls: %+v", got)
	}
}

// TestStatsStream: on a terminal it goes on until the last bottle ends.
func TestStatsStream(t *testing.T) {
	r := newRig(t, 1)
	l := r.start(t)
	s := r.open(t, "stats", l.name)
	s.shows(t, l.name)
	eventually(t, "a second sample", func() bool { return strings.Count(s.screen.String(), "\x1b[H") > 1 })
	l.stop(t)
	if code := s.ends(t); code != 0 {
		t.Errorf("exit %d: %s", code, s.screen.String())
	}
}
