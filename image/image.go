// Package image finds, pulls and imports images in containerd and unpacks them
// into a snapshotter. It knows nothing about bottles and networks.
package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Store is the images of one containerd namespace.
type Store struct {
	Client      *containerd.Client
	Snapshotter string
	Insecure    []string // registries, as host:port, spoken to by plain HTTP
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

// Ensure returns the local image, or pulls it.
func (s Store) Ensure(ctx context.Context, ref string) (Image, error) {
	img, err := s.Get(ctx, ref)
	if !errdefs.IsNotFound(err) {
		return img, err
	}
	img, pullErr := s.Pull(ctx, ref)
	if pullErr != nil {
		return Image{}, fmt.Errorf("%w; %w", err, pullErr)
	}
	return img, nil
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
func (s Store) unpack(ctx context.Context, img containerd.Image) error {
	done, err := img.IsUnpacked(ctx, s.Snapshotter)
	if err != nil {
		return fmt.Errorf("image %s has no usable content for this platform: %w", img.Name(), err)
	}
	if done {
		return nil
	}
	ctx, release, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := img.Unpack(ctx, s.Snapshotter); err != nil {
		return fmt.Errorf("unpack %s into %s: %w", img.Name(), s.Snapshotter, err)
	}
	return nil
}

// lease keeps what is under way from the garbage collector. It is released on
// a context that outlives a cancelled one; were that to fail it expires.
func (s Store) lease(ctx context.Context) (context.Context, func(), error) {
	const expiry = time.Hour
	manager := s.Client.LeasesService()
	l, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(expiry))
	if err != nil {
		return nil, nil, fmt.Errorf("create lease: %w", err)
	}
	release := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = manager.Delete(ctx, l, leases.SynchronousDelete)
	}
	return leases.WithLease(ctx, l.ID), release, nil
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

// Listed is an image as `image ls` shows it. Size is of the content in bytes.
type Listed struct {
	Ref     string    `json:"ref"`
	Digest  string    `json:"digest"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
}

// List returns the images by reference.
func (s Store) List(ctx context.Context) ([]Listed, error) {
	images, err := s.Client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	list := make([]Listed, 0, len(images))
	for _, img := range images {
		size, err := img.Size(ctx)
		if err != nil {
			size = -1 // of another platform, or with content missing
		}
		list = append(list, Listed{Ref: img.Name(), Digest: img.Target().Digest.String(), Size: size, Created: img.Metadata().CreatedAt})
	}
	slices.SortFunc(list, func(a, b Listed) int { return strings.Compare(a.Ref, b.Ref) })
	return list, nil
}
