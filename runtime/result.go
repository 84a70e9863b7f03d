package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/changes"
	"carboy/runtime/invoker"
)

// A result is what an agent wrote to its workspace: a snapshot under a lease of
// its own, which outlives the bottle.
const (
	labelResult = "carboy/result"
	resultLease = "carboy.result."
)

// Result is the record of one.
type Result struct {
	WorkspacePlan
	Name     string    `json:"name"` // of the bottle
	Instance string    `json:"instance"`
	User     int       `json:"user"` // uid of who asked
	StateDir string    `json:"stateDir"`
	Started  time.Time `json:"started"`
	Size     int64     `json:"size,omitempty"` // in bytes; not part of the record

	lease leases.Lease
}

func (r Result) record() Record {
	return Record{Name: r.Name, Instance: r.Instance, StateDir: r.StateDir, Workspace: &r.WorkspacePlan}
}

// recordResult gives the bottle's snapshot to a lease that stays.
func (b *Bottle) recordResult(ctx context.Context) error {
	text, err := json.Marshal(Result{WorkspacePlan: *b.Workspace, Name: b.Name, Instance: b.Instance, User: b.User, StateDir: b.StateDir, Started: time.Now().UTC()})
	if err != nil {
		return err
	}
	service := b.host.Client.LeasesService()
	lease, err := service.Create(ctx, leases.WithID(resultLease+b.Instance), leases.WithLabels(map[string]string{labelResult: string(text)}))
	if err != nil {
		return fmt.Errorf("create lease: %w", err)
	}
	err = service.AddResource(ctx, lease, leases.Resource{ID: b.workspaceID(), Type: "snapshots/" + b.host.Snapshotter})
	if err != nil {
		return fmt.Errorf("keep the workspace's snapshot: %w", err)
	}
	return nil
}

// Results are those that who asks may see, newest first.
func (h *Host) Results(ctx context.Context) ([]Result, error) {
	found, err := h.leases(ctx, `labels."`+labelResult+`"`)
	if err != nil {
		return nil, err
	}
	all := []Result{}
	for _, l := range found {
		r := Result{lease: l}
		if err := json.Unmarshal([]byte(l.Labels[labelResult]), &r); err != nil || l.ID != resultLease+r.Instance {
			return nil, fmt.Errorf("lease %s does not match its record: %w", l.ID, errdefs.ErrFailedPrecondition)
		}
		if h.shows(r.User) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Result) int { return b.Started.Compare(a.Started) })
	return all, nil
}

// Result is that of the bottle with a name, the last one of several, or of that
// instance. It fails with errdefs.ErrNotFound.
func (h *Host) Result(ctx context.Context, name string) (Result, error) {
	all, err := h.Results(ctx)
	if err != nil {
		return Result{}, err
	}
	if r, found := called(all, name); found {
		return r, nil
	}
	return Result{}, fmt.Errorf("bottle %s has no workspace, or works on the live directory, or changed nothing, or that is no longer kept: %w", name, errdefs.ErrNotFound)
}

// called is the result of that instance, else the newest of that name, which
// somebody may have chosen to be another's instance.
func called(newestFirst []Result, name string) (r Result, found bool) {
	for _, is := range []func(Result) bool{
		func(r Result) bool { return r.Instance == name },
		func(r Result) bool { return r.Name == name },
	} {
		if i := slices.IndexFunc(newestFirst, is); i >= 0 {
			return newestFirst[i], true
		}
	}
	return Result{}, false
}

// HasResult says whether there is one.
func (h *Host) HasResult(ctx context.Context, instance string) bool {
	_, err := h.Result(context.WithoutCancel(ctx), instance)
	return err == nil
}

// Since is from when on a change of the project is another's than the agent's;
// zero where the tree before is a copy, which shows it.
func (r Result) Since() time.Time {
	if r.Mode == ModeOverlay {
		return r.Started
	}
	return time.Time{}
}

// Sides opens what was before and what the agent wrote; a live directory as its
// user. Until the caller closes them nobody's rm or gc takes them away.
func (h *Host) Sides(ctx context.Context, r Result, who invoker.User) (s changes.Sides, err error) {
	release, err := h.hold(ctx, r.record().workspaceID())
	if err != nil {
		return s, err
	}
	if s, err = h.openSides(ctx, r, who); err != nil {
		return s, errors.Join(err, release())
	}
	s.Release = release
	return s, nil
}

func (h *Host) openSides(ctx context.Context, r Result, who invoker.User) (s changes.Sides, err error) {
	s.Live = h.Lives(r.Instance)
	l, err := h.snapshotLayers(ctx, r.record().workspaceID())
	if err != nil {
		return s, err
	}
	if r.Mode == ModeOverlay {
		s.User = &who
		s.Before, err = who.OpenDir(r.Directory)
	} else {
		s.Before, err = openIn(l.lowers)
	}
	if err != nil {
		return s, err
	}
	s.Upper, err = openIn([]string{l.upper})
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, errors.Join(err, s.Before.Close())
	}
	return s, nil
}

// openIn opens the files of a tree in its layers.
func openIn(dirs []string) (*os.File, error) {
	top, err := openLayers(dirs)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	in := beneath.In(top)
	return in.Open(treeFiles, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// Now opens the workspace as it is: that of a living bottle where it is mounted,
// else its layers for reading. Of one over a live directory that has ended these
// are only what the agent wrote.
func (h *Host) Now(ctx context.Context, r Result) (*os.File, error) {
	if record := r.record(); h.Lives(r.Instance) {
		return os.OpenFile(record.workspaceTree(), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	}
	l, err := h.snapshotLayers(ctx, r.record().workspaceID())
	if err != nil {
		return nil, err
	}
	tree, err := openIn(append([]string{l.upper}, l.lowers...))
	if errors.Is(err, fs.ErrNotExist) { // nothing was written to a copy
		return openIn(l.lowers)
	}
	return tree, err
}

// settleResult drops the result of a bottle that is known to have changed
// nothing.
func (h *Host) settleResult(ctx context.Context, record Record) error {
	r, err := h.Result(ctx, record.Instance)
	if errdefs.IsNotFound(err) {
		return nil // it never got that far, or was settled before
	}
	if err != nil {
		return err
	}
	changed, err := h.changed(ctx, r)
	if err != nil || changed {
		return err
	}
	return h.DropResult(ctx, r)
}

// changed says whether there is anything to keep. The user of a live directory
// is not here to compare with it: whatever was written is kept.
func (h *Host) changed(ctx context.Context, r Result) (_ bool, err error) {
	if r.Mode == ModeOverlay {
		l, err := h.snapshotLayers(ctx, r.record().workspaceID())
		if err != nil {
			return false, err
		}
		written, err := os.ReadDir(filepath.Join(l.upper, treeFiles))
		return len(written) > 0, err
	}
	sides, err := h.openSides(ctx, r, invoker.User{})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, sides.Close()) }()
	return perhapsChanged(ctx, sides, compareTime)
}

// compareTime is for the contents of files that were opened for writing. A
// bottle's end does not wait for an agent that touched what is huge.
const compareTime = 2 * time.Second

// perhapsChanged says yes where it takes longer to know.
func perhapsChanged(ctx context.Context, s changes.Sides, limit time.Duration) (bool, error) {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	changed, err := s.Any(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return true, nil
	}
	return changed, err
}

// DropResult removes a result for good.
func (h *Host) DropResult(ctx context.Context, r Result) error {
	err := h.Client.LeasesService().Delete(ctx, r.lease, leases.SynchronousDelete)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the result of %s: %w", r.Name, err)
	}
	return nil
}
