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
)

// cgroupRoot is where both versions of control groups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// checkLimits reads back what is in force for the agent, and that its first
// process is under it: a runtime may take a specification and not apply it.
func (b *Bottle) checkLimits() error {
	l := b.plan.Limits
	memory := l.Memory / int64(os.Getpagesize()) * int64(os.Getpagesize()) // as the kernel rounds it
	return errors.Join(
		b.checkLimit("memory", "memory.limit_in_bytes", "memory.max", memory),
		b.checkLimit("pids", "pids.max", "pids.max", l.Pids),
	)
}

// checkLimit looks in version 1's hierarchy of a controller, else in version 2's
// only one.
func (b *Bottle) checkLimit(controller, v1, v2 string, want int64) error {
	file := filepath.Join(cgroupRoot, controller, cgroup(b.agentID()), v1)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		file = filepath.Join(cgroupRoot, cgroup(b.agentID()), v2)
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return fmt.Errorf("%s limit: %w", controller, err)
	}
	if have := strings.TrimSpace(string(text)); have != strconv.FormatInt(want, 10) {
		return fmt.Errorf("%s limit is %s, not %d", controller, have, want)
	}
	members, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("%s limit: %w", controller, err)
	}
	if !slices.Contains(strings.Fields(string(members)), strconv.Itoa(int(b.agent.task.Pid()))) {
		return fmt.Errorf("the agent's container is not under its %s limit", controller)
	}
	return nil
}
