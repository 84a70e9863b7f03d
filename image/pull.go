package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"
)

// transfers is how many layers of one pull are on their way at once.
const transfers = 4

// Pull fetches an image and unpacks it. Platform is os/arch[/variant], and
// empty for this host's; nothing of others is fetched. On error no lease and no
// image of it is left, but parts of blobs, from which a later pull goes on.
func (s Store) Pull(ctx context.Context, ref, platform string) (Image, error) {
	matcher, err := Platform(platform)
	if err != nil {
		return Image{}, err
	}
	return s.locked(ctx, ref, func(name string) (Image, error) { return s.pull(ctx, name, matcher) })
}

func (s Store) pull(ctx context.Context, name string, matcher platforms.MatchComparer) (_ Image, err error) {
	ctx, release, err := s.Lease(ctx)
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, release(!errdefs.IsResourceExhausted(err))) }()
	ctx = withoutLog(ctx)
	p := &pull{store: s, platform: matcher, turns: semaphore.NewWeighted(transfers)}
	img, err := s.Client.Pull(ctx, name, containerd.WithResolver(s.Access.Resolver(ctx, s.Progress.Read)),
		containerd.WithPlatformMatcher(matcher),
		containerd.WithImageHandlerWrapper(p.wrap), containerd.WithUnpackOpts([]containerd.UnpackOpt{everything}),
		containerd.WithPullUnpack, containerd.WithPullSnapshotter(s.Snapshotter))
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", name, p.explain(ctx, name, err))
	}
	return s.open(ctx, img)
}

// withoutLog is for the client, which logs what it meets while it cleans up after
// a failure as an error beside the one that it returns.
func withoutLog(ctx context.Context) context.Context {
	if log.GetLevel() >= log.DebugLevel {
		return ctx
	}
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(silent))
}

// everything has layers fetched even where an image with the same ones was
// unpacked before: what is listed can be exported.
func everything(_ context.Context, c *containerd.UnpackConfig) error {
	c.FetchAllContent = true
	return nil
}

// Platform reads os/arch[/variant]. Empty is this host's.
func Platform(text string) (platforms.MatchComparer, error) {
	if text == "" {
		return platforms.Default(), nil
	}
	p, err := platforms.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("platform %q: give os/arch[/variant], as in linux/arm64: %w: %w", text, err, errdefs.ErrInvalidArgument)
	}
	return platforms.Only(p), nil
}
