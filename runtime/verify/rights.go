package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"

	"carboy/runtime/bottlespec"
)

func (c Container) capabilities() error {
	set := c.Spec.Process.Capabilities
	if set == nil {
		return errors.New("the specification names no capabilities")
	}
	granted := slices.Concat(set.Bounding, set.Effective, set.Permitted, set.Inheritable, set.Ambient)
	slices.Sort(granted)
	allowed := bottlespec.Capabilities(c.Root)
	more := slices.DeleteFunc(slices.Compact(granted), func(name string) bool { return slices.Contains(allowed, name) })
	if len(more) > 0 {
		return fmt.Errorf("the specification grants %s", strings.Join(more, " "))
	}
	if c.Sandbox { // whose own capabilities are not the agent's
		return nil
	}
	return c.each(func(s status) error { return checkRights(s.pid, s.has(), s.bits("CapBnd"), c.Root) })
}

// checkRights wants no more than is left after carboy-init was sealed.
func checkRights(pid int, has, bounding uint64, root bool) error {
	most, mostBounding := bottlespec.SealedCapabilities(root)
	if more := has&^most | bounding&^mostBounding; more != 0 {
		return fmt.Errorf("process %d has, or can get, %s", pid, names(more))
	}
	return nil
}

func names(bits uint64) string {
	var all []string
	for _, c := range capability.ListKnown() {
		if bits&(1<<c) != 0 {
			all = append(all, "CAP_"+strings.ToUpper(c.String()))
			bits &^= 1 << c
		}
	}
	if bits != 0 {
		all = append(all, fmt.Sprintf("capabilities %#x", bits))
	}
	return strings.Join(all, " ")
}

func (c Container) seccomp() error {
	if s := c.Spec.Linux.Seccomp; s == nil || s.DefaultAction != specs.ActErrno {
		return errors.New("the specification has no profile that refuses by default")
	}
	const filter = "2"
	return c.eachIs("Seccomp", filter, "seccomp is off")
}

func (c Container) noNewPrivs() error {
	if !c.Spec.Process.NoNewPrivileges {
		return errors.New("off in the specification")
	}
	return c.eachIs("NoNewPrivs", "1", "no_new_privs is off")
}

// eachIs: a sandbox has its own way with both, which is not the agent's.
func (c Container) eachIs(key, want, else_ string) error {
	if c.Sandbox {
		return nil
	}
	return c.each(func(s status) error {
		if s.values[key] != want {
			return fmt.Errorf("process %d: %s", s.pid, else_)
		}
		return nil
	})
}

// status is what the kernel says of a process (proc_pid_status(5)).
type status struct {
	pid    int
	values map[string]string
}

// each looks at every process of the container, of which the first is there.
func (c Container) each(look func(status) error) error {
	pids, err := c.Members()
	if err != nil {
		return fmt.Errorf("processes of the container: %w", err)
	}
	if !slices.Contains(pids, c.PID) {
		return fmt.Errorf("its first process, %d, is not in its control group", c.PID)
	}
	for _, pid := range pids {
		s, err := readStatus(pid)
		if errors.Is(err, fs.ErrNotExist) && pid != c.PID {
			continue // it has just ended
		}
		if err != nil {
			return err
		}
		if strings.HasPrefix(s.values["State"], "Z") {
			continue
		}
		if err := look(s); err != nil {
			return err
		}
	}
	return nil
}

func readStatus(pid int) (status, error) {
	s := status{pid: pid, values: map[string]string{}}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			s.values[key] = strings.TrimSpace(value)
		}
	}
	return s, nil
}

// bits are all where the kernel does not say: that fails every check.
func (s status) bits(key string) uint64 {
	n, err := strconv.ParseUint(s.values[key], 16, 64)
	if err != nil {
		return ^uint64(0)
	}
	return n
}

func (s status) has() uint64 {
	return s.bits("CapEff") | s.bits("CapPrm") | s.bits("CapInh") | s.bits("CapAmb")
}
