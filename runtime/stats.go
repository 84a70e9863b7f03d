package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a bottle, agent and proxy together, has used and uses.
type Usage struct {
	Time     time.Time     `json:"time"`
	CPU      time.Duration `json:"cpu"`      // since its start, in nanoseconds
	Memory   int64         `json:"memory"`   // in bytes, without what the kernel would give back first
	Limit    int64         `json:"limit"`    // of the agent's memory, in bytes
	PIDs     int64         `json:"pids"`     // processes and threads
	Received uint64        `json:"received"` // bytes, from outside to the proxy
	Sent     uint64        `json:"sent"`
}

// Usage reads the control groups of a bottle's containers and the proxy's
// outer link. It fails with fs.ErrNotExist for one that has ended.
func (h *Host) Usage(ctx context.Context, r Record) (u Usage, err error) {
	u.Time = time.Now()
	agent, agentErr := groupUsage(r.cgroup(r.agentID()))
	proxy, proxyErr := groupUsage(r.cgroup(r.proxyID()))
	u.CPU, u.Memory, u.PIDs = agent.CPU+proxy.CPU, agent.Memory+proxy.Memory, agent.PIDs+proxy.PIDs
	u.Limit = agent.Limit
	var linkErr error
	u.Received, u.Sent, linkErr = linkUsage(h.pid(ctx, r.proxyID()))
	if err := errors.Join(agentErr, proxyErr, linkErr); err != nil {
		return u, fmt.Errorf("usage of bottle %s: %w", r.Name, err)
	}
	return u, nil
}

// counter is a number of a controller in both versions of control groups.
type counter struct {
	controller, file1, file2 string
	field1, field2           string // of a file with many; empty is the whole file
}

// The kernel's cgroup-v1/memory.rst, cpuacct.rst, pids.rst and cgroup-v2.rst.
var (
	cpuCounter      = counter{"cpuacct", "cpuacct.usage", "cpu.stat", "", "usage_usec"}
	memoryCounter   = counter{"memory", "memory.usage_in_bytes", "memory.current", "", ""}
	inactiveCounter = counter{"memory", "memory.stat", "memory.stat", "total_inactive_file", "inactive_file"}
	limitCounter    = counter{"memory", "memory.limit_in_bytes", "memory.max", "", ""}
	pidsCounter     = counter{"pids", "pids.current", "pids.current", "", ""}
)

func groupUsage(group string) (u Usage, err error) {
	cpu, version, err1 := cpuCounter.read(group)
	memory, _, err2 := memoryCounter.read(group)
	inactive, _, err3 := inactiveCounter.read(group)
	limit, _, err4 := limitCounter.read(group)
	pids, _, err5 := pidsCounter.read(group)
	unit := time.Nanosecond
	if version == 2 {
		unit = time.Microsecond
	}
	return Usage{CPU: time.Duration(cpu) * unit, Memory: max(0, memory-inactive), Limit: limit, PIDs: pids},
		errors.Join(err1, err2, err3, err4, err5)
}

func (c counter) read(group string) (n int64, version int, err error) {
	text, _, version, err := readGroup(c.controller, group, c.file1, c.file2)
	if err != nil {
		return 0, 0, err
	}
	field := c.field1
	if version == 2 {
		field = c.field2
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			name, value = "", name
		}
		if name != field {
			continue
		}
		if value == "max" { // no limit
			return 0, version, nil
		}
		n, err = strconv.ParseInt(value, 10, 64)
		return n, version, err
	}
	return 0, version, fmt.Errorf("no %s in %s of %s: %w", field, c.controller, group, fs.ErrNotExist)
}

// outerLink is the proxy's end of the way out.
const outerLink = "eth0"

// linkUsage reads what proc_pid_net(5) shows of a process's own namespace.
func linkUsage(pid uint32) (received, sent uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(text) {
		name, counters, ok := strings.Cut(string(line), ":")
		fields := strings.Fields(counters)
		const in, out = 0, 8
		if !ok || strings.TrimSpace(name) != outerLink || len(fields) <= out {
			continue
		}
		received, err1 := strconv.ParseUint(fields[in], 10, 64)
		sent, err2 := strconv.ParseUint(fields[out], 10, 64)
		return received, sent, errors.Join(err1, err2)
	}
	return 0, 0, fmt.Errorf("no link %s beside process %d: %w", outerLink, pid, fs.ErrNotExist)
}
