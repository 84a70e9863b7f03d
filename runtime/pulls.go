package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/leases"

	"carboy/image"
)

// labelPull marks the leases of pulls and imports; its value is their Owner.
const labelPull = "carboy/pull"

// pullLabels are for the leases that this process makes for images.
func pullLabels() (map[string]string, error) {
	owner, err := self()
	if err != nil {
		return nil, fmt.Errorf("read own start time: %w", err)
	}
	b, err := json.Marshal(owner)
	if err != nil {
		return nil, err
	}
	return map[string]string{labelPull: string(b)}, nil
}

// deadPulls are the leases of pulls whose process is gone.
func (h *Host) deadPulls(ctx context.Context) (dead []leases.Lease, err error) {
	found, err := h.leases(ctx, `labels."`+labelPull+`"`)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, l := range found {
		var owner Owner
		if err := json.Unmarshal([]byte(l.Labels[labelPull]), &owner); err != nil {
			errs = append(errs, fmt.Errorf("lease %s names no owner: %w", l.ID, err))
			continue
		}
		alive, err := owner.alive()
		errs = append(errs, err)
		if err == nil && !alive {
			dead = append(dead, l)
		}
	}
	return dead, errors.Join(errs...)
}

// lockPull waits for the lock of an image's name, however long another process
// takes to pull it.
func (h *Host) lockPull(ctx context.Context, name string, waiting func()) (unlock func() error, err error) {
	sum := sha256.Sum256([]byte(h.Namespace + " " + name))
	path := filepath.Join(locksDir(h.StateDir), "pull-"+hex.EncodeToString(sum[:8]))
	l, err := tryLock(path)
	if errors.Is(err, errHeld) {
		waiting()
	}
	for errors.Is(err, errHeld) {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for another pull of %s: %w", name, context.Cause(ctx))
		}
		l, err = waitLock(ctx, path, time.Minute)
	}
	if err != nil {
		return nil, err
	}
	return l.remove, nil
}

// ImageUsers are the bottles by the images that they use.
func (h *Host) ImageUsers(ctx context.Context) (image.Users, error) {
	records, unknown, err := h.records(ctx)
	if err != nil {
		return nil, err
	}
	users := image.Users{}
	for _, r := range records {
		for _, digest := range []string{r.Digest, r.ProxyDigest} {
			if digest != "" {
				users[digest] = append(users[digest], "bottle "+r.Name)
			}
		}
	}
	return users, errors.Join(unknown...)
}
