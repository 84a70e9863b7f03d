package runtime

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"

	"carboy/netns"
)

// layout is the version of what a record means. A record of another version
// is reported and never touched.
const layout = 1

const (
	leasePrefix = "carboy-"
	labelLayout = "carboy/layout"
	labelRecord = "carboy/record"
	// labelInstance marks containers, so that gc finds one without a lease.
	labelInstance = "carboy/instance"
	labelStateDir = "carboy/state-dir"
)

// Record is everything that the removal of a bottle needs, known before the
// first thing is made. It is stored in the lease, whose labels cannot change.
type Record struct {
	Layout      int            `json:"layout"`
	Kind        string         `json:"kind,omitempty"` // empty is a bottle
	Name        string         `json:"name"`
	Instance    string         `json:"instance"` // ten random characters; names all else
	Agent       string         `json:"agent,omitempty"`
	Image       string         `json:"image"`
	Digest      string         `json:"digest"` // of the image
	Runtime     string         `json:"runtime"`
	Proxy       string         `json:"proxy"`
	ProxyDigest string         `json:"proxyDigest,omitempty"` // of the proxy's image, if it has one
	Authority   string         `json:"authority,omitempty"`   // SHA-256 of the certificate with which TLS is intercepted
	Owner       Owner          `json:"owner"`
	User        int            `json:"user"`      // the invoker's uid
	ProxyUser   int            `json:"proxyUser"` // the uid that the proxy engine runs as
	StateDir    string         `json:"stateDir"`
	Network     netns.Record   `json:"network"`
	Cgroup      string         `json:"cgroup,omitempty"` // the one that systemd delegated, where there is one
	Workspace   *WorkspacePlan `json:"workspace,omitempty"`
	Created     time.Time      `json:"-"` // the lease's
}

// Owner is the process that supervises a bottle.
type Owner struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot
	Boot  string `json:"boot"`
}

// kindBuild is the record of a build's network. No container belongs to it.
const kindBuild = "build"

// instanceName is what newInstance makes.
var instanceName = regexp.MustCompile(`^[a-z2-7]{10}$`)

// newInstance is random, so that nothing made for one bottle is ever taken
// for another's.
func newInstance() string {
	b := make([]byte, 7)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return strings.ToLower(base32.StdEncoding.EncodeToString(b)[:10])
}

func (r Record) agentID() string { return r.Instance + "-a" }
func (r Record) proxyID() string { return r.Instance + "-p" }

// dir is the bottle's run directory.
func (r Record) dir() string { return filepath.Join(r.StateDir, r.Instance) }

func (r Record) lockPath() string { return filepath.Join(locksDir(r.StateDir), r.Instance) }

// locksDir holds a lock file for each instance.
func locksDir(stateDir string) string { return filepath.Join(stateDir, "lock") }

func (r Record) leaseID() string { return leasePrefix + r.Name }

// cgroup is a container's path below each controller. It has no parent of its
// own, so the runtime's removal of it leaves nothing.
func (r Record) cgroup(containerID string) string {
	return filepath.Join("/", r.Cgroup, "carboy-"+containerID)
}

func (r Record) labels() (map[string]string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return map[string]string{labelLayout: strconv.Itoa(layout), labelRecord: string(b)}, nil
}

// readRecord fails with errdefs.ErrFailedPrecondition for a layout that this
// version does not know.
func readRecord(l leases.Lease) (Record, error) {
	if v := l.Labels[labelLayout]; v != strconv.Itoa(layout) {
		return Record{}, fmt.Errorf("lease %s has layout %q, this carboy knows %d: use the version that made it: %w", l.ID, v, layout, errdefs.ErrFailedPrecondition)
	}
	r := Record{Created: l.CreatedAt}
	if err := json.Unmarshal([]byte(l.Labels[labelRecord]), &r); err != nil {
		return Record{}, fmt.Errorf("record of lease %s: %w: %w", l.ID, err, errdefs.ErrFailedPrecondition)
	}
	if r.leaseID() != l.ID || !instanceName.MatchString(r.Instance) || !filepath.IsAbs(r.StateDir) {
		return Record{}, fmt.Errorf("lease %s does not match its record: %w", l.ID, errdefs.ErrFailedPrecondition)
	}
	return r, nil
}

// self is this process as an owner.
func self() (Owner, error) {
	boot, err := bootID()
	if err != nil {
		return Owner{}, err
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		return Owner{}, err
	}
	return Owner{PID: os.Getpid(), Start: start, Boot: boot}, nil
}

// alive says whether the owner still runs. Wall time plays no part.
func (o Owner) alive() (bool, error) {
	boot, err := bootID()
	if err != nil {
		return false, err
	}
	if o.Boot != boot {
		return false, nil
	}
	start, err := startTime(o.PID)
	if os.IsNotExist(err) {
		return false, nil
	}
	return start == o.Start, err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// startTime is field 22 of /proc/PID/stat; a zombie counts as gone.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, field 2, may hold anything; the last ')' ends it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const state, start = 0, 19 // counted from field 3
	if len(fields) <= start {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if fields[state] == "Z" || fields[state] == "X" {
		return 0, os.ErrNotExist
	}
	return strconv.ParseUint(fields[start], 10, 64)
}
