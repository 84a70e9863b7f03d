package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"carboy/runtime/bottlespec"
	"carboy/runtime/manifest"
)

// Defaults of a bottle's limits (bytes, processes).
const (
	maxMemory   = 8 << 30 // or half of the host's, if that is less
	defaultPids = 4096
	defaultDisk = 20 << 30
)

// PlanLimits are the agent's, in bytes, cores and processes. Disk is what it
// may write.
type PlanLimits struct {
	Memory int64   `json:"memory"`
	CPUs   float64 `json:"cpus"` // zero: all
	Pids   int64   `json:"pids"`
	Disk   int64   `json:"disk"`
}

func (p *Plan) setLimits(r Request, b manifest.Bottle) error {
	m := b.Limits
	l := PlanLimits{CPUs: cmp.Or(r.CPUs, m.CPUs), Pids: cmp.Or(r.Pids, m.Pids, defaultPids), Memory: defaultMemory(), Disk: defaultDisk}
	p.Limits = l
	const mostCPUs = 8192                                     // NR_CPUS of the largest kernels
	if c := l.CPUs; c != 0 && !(c >= 0.01 && c <= mostCPUs) { // NaN compares to nothing
		return ifWritten(r.CPUs == 0, b.At("limits", "cpus")).Fault(invalid("cpus %v: give a number from 0.01 to %d", c, mostCPUs))
	}
	if l.Pids < 16 {
		return ifWritten(r.Pids == 0, b.At("limits", "pids")).Fault(invalid("pids limit %d: give at least 16", l.Pids))
	}
	return errors.Join(
		setSize(&p.Limits.Memory, "memory", cmp.Or(r.Memory, m.Memory), manifest.LeastMemory),
		setSize(&p.Limits.Disk, "disk", cmp.Or(r.Disk, m.Disk), manifest.LeastDisk),
	)
}

// setSize reads a limit in bytes, where one was asked for.
func setSize(limit *int64, what, text string, least int64) error {
	if text == "" {
		return nil
	}
	n, err := manifest.Size(text, least)
	if err != nil {
		return invalid("%s %w", what, err)
	}
	*limit = n
	return nil
}

func defaultMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return maxMemory
	}
	return min(maxMemory, int64(info.Totalram)*int64(info.Unit)/2)
}

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

// check reads back what is in force for the agent, and that its first
// process is under it: a runtime may take a specification and not apply it.
func (l PlanLimits) check(group string, pid int) error {
	var errs []error
	for _, one := range l.inForce() {
		errs = append(errs, one.check(group, pid))
	}
	return errors.Join(errs...)
}

// words are the limits as they are in force.
func (l PlanLimits) words() string {
	text := fmt.Sprintf("memory %s, %d processes", units.BytesSize(float64(l.Memory)), l.Pids)
	if l.CPUs > 0 {
		text += fmt.Sprintf(", %v CPUs", l.CPUs)
	}
	return text
}

// readGroup reads a file of a control group, where it has one name in version 1's
// hierarchy of a controller, else another in version 2's only one.
func readGroup(controller, group, file1, file2 string) (text []byte, file string, version int, err error) {
	file = filepath.Join(cgroupRoot, controller, group, file1)
	if text, err = os.ReadFile(file); !errors.Is(err, fs.ErrNotExist) {
		return text, file, 1, err
	}
	file = filepath.Join(cgroupRoot, group, file2)
	text, err = os.ReadFile(file)
	return text, file, 2, err
}

func (l limit) check(group string, pid int) error {
	text, file, version, err := readGroup(l.controller, group, l.file1, l.file2)
	if err != nil {
		return fmt.Errorf("%s limit: %w", l.controller, err)
	}
	want := l.value1
	if version == 2 {
		want = l.value2
	}
	if have := strings.TrimSpace(string(text)); have != want {
		return fmt.Errorf("%s limit is %s, not %s", l.controller, have, want)
	}
	members, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("%s limit: %w", l.controller, err)
	}
	if !slices.Contains(strings.Fields(string(members)), strconv.Itoa(pid)) {
		return fmt.Errorf("the agent's container is not under its %s limit", l.controller)
	}
	return nil
}
