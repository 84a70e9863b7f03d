package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"carboy/image/registry"
)

// pull is one pull while it runs.
type pull struct {
	store    Store
	platform platforms.MatchComparer
	turns    *semaphore.Weighted // of layers
}

// Retries of a blob that gets no further; each byte starts them anew.
const (
	retries   = 4
	retryTime = 500 * time.Millisecond // before the first, doubled for each
)

// wrap is around the client's own handler, which fetches a blob and returns
// those that it names.
func (p *pull) wrap(h images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := p.inTurn(ctx, h, desc)
		switch {
		case err != nil && images.IsIndexType(desc.MediaType) && errdefs.IsNotFound(err):
			return nil, p.otherPlatforms(ctx, desc, err)
		case err == nil && images.IsConfigType(desc.MediaType):
			return children, p.checkPlatform(ctx, desc)
		}
		return children, err
	})
}

// mostMetadata is how big a blob may be that is read into memory.
const mostMetadata = 8 << 20

// inTurn shows layers, and has them wait for each other.
func (p *pull) inTurn(ctx context.Context, h images.Handler, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !images.IsLayerType(desc.MediaType) {
		if desc.Size > mostMetadata {
			return nil, fmt.Errorf("%s of %d bytes: %w", registry.Printable(desc.MediaType), desc.Size, errdefs.ErrInvalidArgument)
		}
		return p.persist(ctx, h, desc)
	}
	if err := p.turns.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer p.turns.Release(1)
	children, err := p.persist(ctx, h, desc)
	p.store.Progress.End(desc, err)
	return children, err
}

// persist goes on with a blob that was cut off, from where it ended.
func (p *pull) persist(ctx context.Context, h images.Handler, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	offset := p.offset(ctx, desc)
	t := tries{pull: p, desc: desc, offset: offset, resumed: offset > 0, pause: retryTime, left: retries}
	for {
		if images.IsLayerType(desc.MediaType) {
			p.store.Progress.Begin(desc, t.offset)
		}
		children, err := h.Handle(ctx, desc)
		if err == nil || ctx.Err() != nil {
			return children, err
		}
		if err := t.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// tries are those to fetch one blob.
type tries struct {
	*pull
	desc    ocispec.Descriptor
	offset  int64 // of the last
	resumed bool  // the first went on from an earlier pull's part
	pause   time.Duration
	left    int
}

// again waits for the time of the next try, or returns why there is none.
func (t *tries) again(ctx context.Context, err error) error {
	now := t.pull.offset(ctx, t.desc)
	switch {
	case now > 0 && (errdefs.IsFailedPrecondition(err) || registry.BadRange(err)):
		// A part that is not the registry's, or all of a blob with another
		// digest, would be in the way for ever.
		if abortErr := t.abort(ctx, t.desc); abortErr != nil || !t.resumed {
			return errors.Join(mismatch(t.desc, err), abortErr)
		}
		t.resumed, now = false, 0 // the part that was there may be to blame
	case !registry.Transient(err):
		return err
	case now > t.offset:
		t.pause, t.left = retryTime, retries
	default:
		t.left--
	}
	if t.left == 0 {
		return err
	}
	t.offset = now
	select {
	case <-time.After(t.pause):
		t.pause *= 2
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func mismatch(desc ocispec.Descriptor, err error) error {
	return fmt.Errorf("what it sent is not what it promised, %s with %d bytes: %w", registry.Printable(string(desc.Digest)), desc.Size, err)
}

// offset is what containerd has of a blob that is not whole.
func (p *pull) offset(ctx context.Context, desc ocispec.Descriptor) int64 {
	status, err := p.store.Client.ContentStore().Status(ctx, remotes.MakeRefKey(ctx, desc))
	if err != nil {
		return 0
	}
	return status.Offset
}

func (p *pull) abort(ctx context.Context, desc ocispec.Descriptor) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := p.store.Client.ContentStore().Abort(ctx, remotes.MakeRefKey(ctx, desc))
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// noSpace: containerd has no class for it, and its text is the kernel's.
func noSpace(err error) bool { return strings.Contains(err.Error(), "no space left on device") }

// platformError is what a registry has instead of what was asked for.
type platformError struct{ error }

func (p platformError) Unwrap() error { return p.error }

// checkPlatform is for images without an index, which say what they are for in
// their configuration only.
func (p *pull) checkPlatform(ctx context.Context, desc ocispec.Descriptor) error {
	blob, err := content.ReadBlob(ctx, p.store.Client.ContentStore(), desc)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	var is ocispec.Platform
	if err := json.Unmarshal(blob, &is); err != nil {
		return fmt.Errorf("the configuration is not JSON: %w", errdefs.ErrInvalidArgument)
	}
	if is.OS == "" || is.Architecture == "" || p.platform.Match(platforms.Normalize(is)) {
		return nil
	}
	return platformError{fmt.Errorf("it is an image for %s: name another with --platform of `carboy pull`, if this is what you want: %w",
		registry.Printable(platforms.Format(is)), errdefs.ErrNotFound)}
}

// otherPlatforms turns the failure to find one in an index into words.
func (p *pull) otherPlatforms(ctx context.Context, desc ocispec.Descriptor, err error) error {
	blob, readErr := content.ReadBlob(ctx, p.store.Client.ContentStore(), desc)
	if readErr != nil {
		return err
	}
	var index ocispec.Index
	if json.Unmarshal(blob, &index) != nil {
		return err
	}
	var has []string
	for _, m := range index.Manifests {
		if m.Platform != nil && m.Platform.OS != "unknown" {
			has = append(has, platforms.Format(*m.Platform))
		}
	}
	return platformError{fmt.Errorf("it is not there for this platform, but for %s: choose with --platform of `carboy pull`: %w",
		registry.Printable(strings.Join(has, ", ")), err)}
}

// explain adds what the failure of a pull means to a user.
func (p *pull) explain(ctx context.Context, name string, err error) error {
	var platform platformError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: pull again to go on from there: %w", context.Cause(ctx))
	case noSpace(err):
		return fmt.Errorf("no space left for containerd's %s: free some, `carboy image prune` may help (%s): %w",
			p.store.rootOr(ctx, "root directory"), registry.Printable(err.Error()), errdefs.ErrResourceExhausted)
	case errors.As(err, &platform):
		return platform
	}
	return p.store.Access.Explain(name, err)
}

// Root is where containerd keeps content, as it says itself.
func (s Store) Root(ctx context.Context) (string, error) {
	answer, err := s.Client.IntrospectionService().Plugins(ctx, "type==io.containerd.content.v1")
	if err != nil {
		return "", fmt.Errorf("ask containerd for its root directory: %w", err)
	}
	for _, plugin := range answer.Plugins {
		if root := plugin.Exports["root"]; root != "" {
			return root, nil
		}
	}
	return "", fmt.Errorf("containerd does not say where its content is: %w", errdefs.ErrNotFound)
}

func (s Store) rootOr(ctx context.Context, otherwise string) string {
	if root, err := s.Root(ctx); err == nil {
		return root
	}
	return otherwise
}
