package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Change is what Commit puts on top of an image: all in which upper differs from
// lower, which is the image's own root. Comment goes to the history.
type Change struct {
	Base         string // name of the image
	Digest       string // that it has to have still
	Lower, Upper []mount.Mount
	Comment      string
}

// Commit makes an image of another and a change.
func (s Store) Commit(ctx context.Context, ref string, c Change) (_ Image, err error) {
	name, err := Normalize(ref)
	if err != nil {
		return Image{}, err
	}
	ctx, release, err := s.Lease(ctx)
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, release(false)) }()
	manifest, config, err := s.base(ctx, c)
	if err != nil {
		return Image{}, err
	}
	layer, diffID, err := s.layer(ctx, c)
	if err != nil {
		return Image{}, err
	}
	now := time.Now().UTC()
	config.Created = &now
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	config.History = append(config.History, ocispec.History{Created: &now, CreatedBy: "carboy commit", Comment: c.Comment})
	// Whatever the base is written as: it names its layers by digests.
	manifest.MediaType, manifest.Versioned = ocispec.MediaTypeImageManifest, specs.Versioned{SchemaVersion: 2}
	manifest.Config.MediaType, manifest.Annotations = ocispec.MediaTypeImageConfig, nil
	manifest.Layers = append(manifest.Layers, layer)
	if manifest.Config, err = s.write(ctx, manifest.Config.MediaType, config, nil); err != nil {
		return Image{}, fmt.Errorf("write configuration: %w", err)
	}
	labels := map[string]string{"containerd.io/gc.ref.content.config": manifest.Config.Digest.String()}
	for i, l := range manifest.Layers {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	target, err := s.write(ctx, manifest.MediaType, manifest, labels)
	if err != nil {
		return Image{}, fmt.Errorf("write manifest: %w", err)
	}
	img, err := s.put(ctx, images.Image{Name: name, Target: target})
	if err != nil {
		return Image{}, fmt.Errorf("name image %s: %w", name, err)
	}
	return s.open(ctx, containerd.NewImage(s.Client, img))
}

// base reads the image that a change is to.
func (s Store) base(ctx context.Context, c Change) (m ocispec.Manifest, config ocispec.Image, err error) {
	img, err := s.Client.ImageService().Get(ctx, c.Base)
	if errdefs.IsNotFound(err) || err == nil && img.Target.Digest.String() != c.Digest {
		return m, config, fmt.Errorf("image %s is not here any more as the bottle has it, %s: pull or build it again: %w", c.Base, c.Digest, errdefs.ErrNotFound)
	}
	if err != nil {
		return m, config, err
	}
	store := s.Client.ContentStore()
	if m, err = images.Manifest(ctx, store, img.Target, platforms.Default()); err != nil {
		return m, config, fmt.Errorf("read manifest of %s: %w", c.Base, err)
	}
	for i, l := range m.Layers {
		if _, err := store.Info(ctx, l.Digest); err != nil {
			return m, config, fmt.Errorf("layer %d of %s: %w", i+1, c.Base, err)
		}
		if m.Layers[i].MediaType, err = layerType(l.MediaType); err != nil {
			return m, config, err
		}
	}
	blob, err := content.ReadBlob(ctx, store, m.Config)
	if err != nil {
		return m, config, fmt.Errorf("read configuration of %s: %w", c.Base, err)
	}
	return m, config, json.Unmarshal(blob, &config)
}

// layerType is the same of OCI for one of Docker's.
func layerType(docker string) (string, error) {
	switch docker {
	case images.MediaTypeDockerSchema2Layer:
		return ocispec.MediaTypeImageLayer, nil
	case images.MediaTypeDockerSchema2LayerGzip:
		return ocispec.MediaTypeImageLayerGzip, nil
	case images.MediaTypeDockerSchema2LayerZstd:
		return ocispec.MediaTypeImageLayerZstd, nil
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd:
		return docker, nil
	}
	return "", fmt.Errorf("a layer of type %q: %w", docker, errdefs.ErrNotImplemented)
}

// layer has containerd write down the change.
func (s Store) layer(ctx context.Context, c Change) (ocispec.Descriptor, digest.Digest, error) {
	desc, err := s.Client.DiffService().Compare(ctx, c.Lower, c.Upper, diff.WithMediaType(ocispec.MediaTypeImageLayerGzip))
	if err != nil {
		return desc, "", fmt.Errorf("compare with the image: %w", err)
	}
	info, err := s.Client.ContentStore().Info(ctx, desc.Digest)
	if err != nil {
		return desc, "", fmt.Errorf("find the new layer: %w", err)
	}
	id, err := digest.Parse(info.Labels["containerd.io/uncompressed"])
	return desc, id, err
}

func (s Store) write(ctx context.Context, mediaType string, v any, labels map[string]string) (ocispec.Descriptor, error) {
	blob, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	return desc, content.WriteBlob(ctx, s.Client.ContentStore(), "carboy-commit-"+desc.Digest.String(), bytes.NewReader(blob), desc, content.WithLabels(labels))
}

// put takes the name away from what had it.
func (s Store) put(ctx context.Context, img images.Image) (images.Image, error) {
	service := s.Client.ImageService()
	made, err := service.Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		return service.Update(ctx, img)
	}
	return made, err
}
