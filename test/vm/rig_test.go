package vm

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// What deps.sh made, by the version of its recipe, and what `make deps` did.
const (
	recipe = "vm-2"
	runsc  = "runsc-20260905/runsc"
)

// inventory prints all that a bottle could leave behind.
const inventory = `
for what in 'leases ls' 'containers ls -q' 'tasks ls' 'snapshots ls'; do echo "$what"; ctr -n carboy $what; done
pgrep -a containerd-shim
ip -o link | cut -d: -f2
nft list ruleset
cat /proc/sys/net/ipv4/ip_forward
grep carboy /proc/mounts
find /run/carboy /var/lib/cni /run/netns /run/containerd/io.containerd.runtime.v2.task /run/containerd/runc 2>/dev/null ! -type d ! -name claim.lock ! -path '/run/carboy/probe/*'
find /sys/fs/cgroup -name '*carboy*' ! -name carboy.slice
true`

// rig is the machine as one test uses it. After the test it has to be as before.
func rig(t *testing.T) *Machine {
	t.Helper()
	if !*virtual {
		t.Skip(howto)
	}
	t.Cleanup(func() { checkClean(t) })
	return shared.Machine
}

func checkClean(t *testing.T) {
	t.Helper()
	var now string
	clean := settles(t, func() bool {
		now = do(t, inventory)
		return now == shared.before
	})
	if !clean {
		t.Errorf("the machine is not as before:\n%s\nbefore:\n%s", now, shared.before)
	}
}

// do runs a command line that has to succeed, also when the test has ended.
func do(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	out, err := shared.Run(ctx, line)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// settles waits for a condition, as everything is slow here.
func settles(t *testing.T, f func() bool) bool {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); {
		if t.Failed() || time.Now().After(deadline) {
			return false
		}
		time.Sleep(200 * time.Millisecond)
	}
	return true
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	if !settles(t, f) {
		t.Fatalf("not within two minutes: %s", what)
	}
}

// unit is one of systemd's as it shows it.
type unit struct{ ActiveState, Result, ExecMainStatus, StatusText, InvocationID, ControlGroup, MainPID string }

func show(t *testing.T, name string) (u unit) {
	t.Helper()
	values := map[string]string{}
	for line := range strings.Lines(do(t, "systemctl show "+name)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = value
	}
	text, err := json.Marshal(values)
	if err == nil {
		err = json.Unmarshal(text, &u)
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// dropIn adds lines to the service of one agent, for as long as the test runs.
func dropIn(t *testing.T, agent, lines string) {
	t.Helper()
	dir := "/run/systemd/system/carboy@" + agent + ".service.d"
	do(t, "mkdir -p "+dir+" && printf '[Service]\n"+lines+"\n' >"+dir+"/test.conf && systemctl daemon-reload")
	t.Cleanup(func() { do(t, "rm -rf "+dir+" && systemctl daemon-reload") })
}

// end stops a service at the end of the test, and forgets that it failed.
func end(t *testing.T, service string) {
	t.Helper()
	t.Cleanup(func() {
		do(t, "systemctl stop "+service+"; systemctl reset-failed "+service+" 2>/dev/null || true")
	})
}

// bottles are the states of those that there are.
func bottles(t *testing.T) map[string]string {
	t.Helper()
	states := map[string]string{}
	for line := range strings.Lines(do(t, "carboy ls --format '{{.Name}} {{.State}}'")) {
		name, state, _ := strings.Cut(strings.TrimSpace(line), " ")
		states[name] = state
	}
	return states
}

// entry is one of the journal.
type entry struct {
	Message    string `json:"MESSAGE"`
	Identifier string `json:"SYSLOG_IDENTIFIER"`
	Priority   string `json:"PRIORITY"`
	Bottle     string `json:"CARBOY_BOTTLE"`
	Agent      string `json:"CARBOY_AGENT"`
}

// journal finds entries of this boot by what journalctl takes.
func journal(t *testing.T, matches string) (all []entry) {
	t.Helper()
	for line := range strings.Lines(do(t, "journalctl -b -o json "+matches)) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// find is the first entry with that beginning.
func find(entries []entry, message string) entry {
	for _, e := range entries {
		if strings.HasPrefix(e.Message, message) {
			return e
		}
	}
	return entry{}
}

// said says whether a unit logged it since its last start.
func said(t *testing.T, unit, message string) bool {
	t.Helper()
	return find(journal(t, "_SYSTEMD_INVOCATION_ID="+show(t, unit).InvocationID), message).Message != ""
}
