package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
)

// States of a bottle.
const (
	StateStarting = "starting"
	StateRunning  = "running"
	StateEnding   = "ending"
	StateKept     = "kept"    // a failed bring-up, left standing
	StateDead     = "dead"    // its supervisor is gone; gc removes it
	StateLeaking  = "leaking" // it could not be removed completely; gc tries again
)

// Status is a bottle as `ls` shows it. Reason is why it is leaking.
type Status struct {
	Record
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Status adds the state to a record.
func (h *Host) Status(r Record) Status {
	s := Status{Record: r, State: h.state(r)}
	if s.State == StateLeaking {
		s.Reason = r.leak()
	}
	return s
}

func (h *Host) state(r Record) string {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(r.dir(), name))
		return err == nil
	}
	switch {
	case !held(r.lockPath()) && r.kept():
		return StateKept
	case !held(r.lockPath()) && r.leak() != "":
		return StateLeaking
	case !held(r.lockPath()):
		return StateDead
	case has(endingFile):
		return StateEnding
	case has(controlSocket):
		return StateRunning
	default:
		return StateStarting
	}
}

func (r Record) kept() bool {
	_, err := os.Stat(filepath.Join(r.dir(), keepFile))
	return err == nil
}

// leakFile says in a bottle's run directory what could not be removed.
const leakFile = "leaking"

// leak is empty where nothing is known of one.
func (r Record) leak() string {
	text, err := os.ReadFile(filepath.Join(r.dir(), leakFile))
	if err != nil {
		return ""
	}
	return string(text)
}

// leaks notes what could not be removed. The lease, which stays, is what counts:
// this is for people.
func (r Record) leaks(errs []error) {
	if err := os.MkdirAll(r.dir(), 0o700); err != nil {
		return
	}
	reason := strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; ")
	_ = os.WriteFile(filepath.Join(r.dir(), leakFile), []byte(printable(reason)), 0o600)
}

// endingFile shows that a bottle is being taken down.
const endingFile = "ending"

// Find returns the record of the bottle with that name, or errdefs.ErrNotFound.
func (h *Host) Find(ctx context.Context, name string) (Record, error) {
	if !bottleName.MatchString(name) {
		return Record{}, invalid("bottle name %q", name)
	}
	found, err := h.leases(ctx, "id=="+leasePrefix+name)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if len(found) > 0 {
		r, err = readRecord(found[0])
	}
	if len(found) == 0 || err == nil && !h.shows(r.User) {
		return Record{}, fmt.Errorf("no bottle named %s: `carboy ls` shows what is there: %w", name, errdefs.ErrNotFound)
	}
	return r, err
}

// List returns every bottle by name. The error also tells of leases that this
// version cannot read; the list is good nevertheless.
func (h *Host) List(ctx context.Context) ([]Status, error) {
	records, unknown, err := h.records(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Status, 0, len(records))
	for _, r := range records {
		if r.Kind != kindBuild && h.shows(r.User) {
			list = append(list, h.Status(r))
		}
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	if h.OnlyOf != nil { // whose those are nobody can tell
		return list, nil
	}
	return list, errors.Join(unknown...)
}

// records are those of all leases that are ours; unknown tells of those of
// another layout.
func (h *Host) records(ctx context.Context) (records []Record, unknown []error, err error) {
	found, err := h.leases(ctx, `labels."`+labelLayout+`"`)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range found {
		r, err := readRecord(l)
		if err != nil {
			unknown = append(unknown, err)
			continue
		}
		records = append(records, r)
	}
	return records, unknown, nil
}

func (h *Host) leases(ctx context.Context, filter string) ([]leases.Lease, error) {
	found, err := h.Client.LeasesService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return found, nil
}

// Inspected is everything known about a bottle. It holds no secret: the record
// has none.
type Inspected struct {
	Status
	RunDir     string   `json:"runDir"`
	ProxyLog   string   `json:"proxyLog"`
	Containers []string `json:"containers"`
	PIDs       []uint32 `json:"pids"`     // of the agent's and the proxy's first process; 0 is none
	AppArmor   string   `json:"apparmor"` // profile of the agent's container; empty where the host has none
	SELinux    string   `json:"selinux"`  // label, likewise
}

// Inspect adds what containerd knows.
func (h *Host) Inspect(ctx context.Context, r Record) Inspected {
	i := Inspected{Status: h.Status(r), RunDir: r.dir(), ProxyLog: filepath.Join(h.logDir(r), proxyLogFile),
		Containers: []string{r.agentID(), r.proxyID()}}
	for _, id := range i.Containers {
		i.PIDs = append(i.PIDs, h.pid(ctx, id))
	}
	if agent, err := h.Client.LoadContainer(ctx, r.agentID()); err == nil {
		if spec, err := agent.Spec(ctx); err == nil {
			i.AppArmor, i.SELinux = spec.Process.ApparmorProfile, spec.Process.SelinuxLabel
		}
	}
	return i
}

func (h *Host) pid(ctx context.Context, id string) uint32 {
	container, err := h.Client.LoadContainer(ctx, id)
	if err != nil {
		return 0
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return 0
	}
	return task.Pid()
}
