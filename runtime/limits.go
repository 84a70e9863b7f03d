package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"carboy/runtime/bottlespec"
)

// cgroupRoot is where both versions of control groups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// limit is one of a controller, and how it reads back from each version of
// control groups.
type limit struct {
	controller     string
	file1, file2   string
	value1, value2 string
}

func (l PlanLimits) inForce() []limit {
	page := int64(os.Getpagesize())
	memory := strconv.FormatInt(l.Memory/page*page, 10) // as the kernel rounds it
	pids := strconv.FormatInt(l.Pids, 10)
	limits := []limit{
		{"memory", "memory.limit_in_bytes", "memory.max", memory, memory},
		{"pids", "pids.max", "pids.max", pids, pids},
	}
	if l.CPUs > 0 {
		quota := strconv.FormatInt(bottlespec.Quota(l.CPUs), 10)
		limits = append(limits, limit{"cpu", "cpu.cfs_quota_us", "cpu.max", quota, quota + " " + strconv.Itoa(bottlespec.Period)})
	}
	return limits
}

// checkLimits reads back what is in force for the agent, and that its first
// process is under it: a runtime may take a specification and not apply it.
func (b *Bottle) checkLimits() error {
	var errs []error
	for _, l := range b.plan.Limits.inForce() {
		errs = append(errs, b.checkLimit(l))
	}
	return errors.Join(errs...)
}

// checkLimit looks in version 1's hierarchy of a controller, else in version 2's
// only one.
func (b *Bottle) checkLimit(l limit) error {
	file, want := filepath.Join(cgroupRoot, l.controller, cgroup(b.agentID()), l.file1), l.value1
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		file, want = filepath.Join(cgroupRoot, cgroup(b.agentID()), l.file2), l.value2
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return fmt.Errorf("%s limit: %w", l.controller, err)
	}
	if have := strings.TrimSpace(string(text)); have != want {
		return fmt.Errorf("%s limit is %s, not %s", l.controller, have, want)
	}
	members, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("%s limit: %w", l.controller, err)
	}
	if !slices.Contains(strings.Fields(string(members)), strconv.Itoa(int(b.agent.task.Pid()))) {
		return fmt.Errorf("the agent's container is not under its %s limit", l.controller)
	}
	return nil
}
