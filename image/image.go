// Package image finds, pulls and imports images in containerd and unpacks them
// into a snapshotter. It knows nothing about bottles and networks.
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"carboy/image/progress"
	"carboy/image/registry"
)

// Store is the images of one containerd namespace.
type Store struct {
	Client      *containerd.Client
	Snapshotter string
	Access      registry.Access
	Progress    *progress.Board // nil shows nothing
	LeaseLabels map[string]string
	// Lock is held while an image of that name is pulled, by one process of the
	// host: containerd 1.6 has many that wait for the same blob starve the one
	// that writes it. It says with waiting that it has to wait.
	Lock func(ctx context.Context, name string, waiting func()) (unlock func() error, err error)
}

// Image is one that is present and unpacked for this host's platform.
type Image struct {
	Ref     string // normalised
	Digest  string
	Parent  string // the snapshot on which a container's own is prepared
	Config  ocispec.ImageConfig
	Created time.Time
}

// Normalize makes a reference complete, as docker does: busybox is
// docker.io/library/busybox:latest.
func Normalize(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image reference %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	return named.String(), nil
}

// Get returns a local image and unpacks it if need be. It fails with
// errdefs.ErrNotFound and never asks a registry.
func (s Store) Get(ctx context.Context, ref string) (Image, error) {
	name, err := Normalize(ref)
	if err != nil {
		return Image{}, err
	}
	img, err := s.Client.GetImage(ctx, name)
	if errdefs.IsNotFound(err) {
		return Image{}, s.notFound(ctx, name)
	}
	if err != nil {
		return Image{}, fmt.Errorf("get image %s: %w", name, err)
	}
	return s.open(ctx, img)
}

// Policy says when a registry is asked for an image that bottles need.
type Policy string

// The policies, by the names users give them.
const (
	PullMissing Policy = "missing"
	PullAlways  Policy = "always"
	PullNever   Policy = "never"
)

// ParsePolicy takes an empty one for PullMissing.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case "":
		return PullMissing, nil
	case PullMissing, PullAlways, PullNever:
		return p, nil
	}
	return "", fmt.Errorf("pull %q: choose missing, always or never: %w", s, errdefs.ErrInvalidArgument)
}

// Ensure returns the local image, or pulls it, as the policy says.
func (s Store) Ensure(ctx context.Context, ref string, p Policy) (Image, error) {
	if p == PullAlways {
		return s.Pull(ctx, ref, "")
	}
	img, err := s.Get(ctx, ref)
	if !errdefs.IsNotFound(err) {
		return img, err
	}
	if p == PullNever {
		return Image{}, fmt.Errorf("%w; it is not pulled, by --pull never: get it with `carboy pull %s`", err, ref)
	}
	img, pullErr := s.locked(ctx, ref, func(name string) (Image, error) {
		if img, err := s.Get(ctx, ref); !errdefs.IsNotFound(err) {
			return img, err // another process has pulled it meanwhile
		}
		return s.pull(ctx, name, platforms.Default())
	})
	if pullErr != nil {
		return Image{}, fmt.Errorf("%w; %w", err, pullErr)
	}
	return img, nil
}

// locked does something to a normalised name that one process does at a time.
func (s Store) locked(ctx context.Context, ref string, do func(name string) (Image, error)) (_ Image, err error) {
	name, err := Normalize(ref)
	if err != nil {
		return Image{}, err
	}
	unlock, err := s.Lock(ctx, name, func() { s.Progress.Note("waiting for another process that pulls " + name) })
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return do(name)
}

// notFound also looks where ctr and nerdctl put images, which is the usual
// reason.
func (s Store) notFound(ctx context.Context, name string) error {
	others, err := s.Client.NamespaceService().List(ctx)
	if err != nil {
		others = nil // only a hint is lost
	}
	for _, ns := range others {
		if _, err := s.Client.ImageService().Get(namespaces.WithNamespace(ctx, ns), name); err == nil {
			return fmt.Errorf("image %s is not in this containerd namespace, but in %q: use --namespace, or `ctr -n %s image export FILE %s` and `carboy image import FILE`: %w",
				name, ns, ns, name, errdefs.ErrNotFound)
		}
	}
	return fmt.Errorf("image %s: %w", name, errdefs.ErrNotFound)
}

func (s Store) open(ctx context.Context, img containerd.Image) (Image, error) {
	if err := s.unpack(ctx, img); err != nil {
		return Image{}, err
	}
	diffs, err := img.RootFS(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("read layers of %s: %w", img.Name(), err)
	}
	config, err := readConfig(ctx, img)
	if err != nil {
		return Image{}, err
	}
	return Image{
		Ref: img.Name(), Digest: img.Target().Digest.String(),
		Parent: identity.ChainID(diffs).String(), Config: config, Created: img.Metadata().CreatedAt,
	}, nil
}

// unpack runs under a lease of its own, so that nothing half made outlives it.
func (s Store) unpack(ctx context.Context, img containerd.Image) (err error) {
	done, err := img.IsUnpacked(ctx, s.Snapshotter)
	if err != nil {
		return fmt.Errorf("image %s has no usable content for this platform: %w", img.Name(), err)
	}
	if done {
		return nil
	}
	ctx, release, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release(false)) }()
	if err := img.Unpack(ctx, s.Snapshotter); err != nil {
		return fmt.Errorf("unpack %s into %s: %w", img.Name(), s.Snapshotter, err)
	}
	return nil
}

func readConfig(ctx context.Context, img containerd.Image) (ocispec.ImageConfig, error) {
	desc, err := img.Config(ctx)
	if err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("find configuration of %s: %w", img.Name(), err)
	}
	const limit = 8 << 20
	if desc.Size > limit {
		return ocispec.ImageConfig{}, fmt.Errorf("configuration of %s has %d bytes: %w", img.Name(), desc.Size, errdefs.ErrInvalidArgument)
	}
	blob, err := content.ReadBlob(ctx, img.ContentStore(), desc)
	if err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("read configuration of %s: %w", img.Name(), err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(blob, &config); err != nil {
		return ocispec.ImageConfig{}, fmt.Errorf("configuration of %s: %w", img.Name(), err)
	}
	return config.Config, nil
}
