package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
)

// Import reads an archive as `docker save` or an OCI layout makes it and
// unpacks its images.
func (s Store) Import(ctx context.Context, archive io.Reader) (_ []Image, err error) {
	ctx, release, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release(false)) }()
	imported, err := s.Client.Import(ctx, archive)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	if len(imported) == 0 {
		return nil, fmt.Errorf("the archive names no image: %w", errdefs.ErrInvalidArgument)
	}
	var images []Image
	var failed []error
	for _, metadata := range imported {
		img, err := s.open(ctx, containerd.NewImage(s.Client, metadata))
		if err != nil {
			failed = append(failed, err)
			continue
		}
		images = append(images, img)
	}
	return images, errors.Join(failed...)
}

// hold gives images to the lease of ctx.
func (s Store) hold(ctx context.Context, list []Listed) error {
	id, _ := leases.FromContext(ctx)
	for _, img := range list {
		if err := s.Client.LeasesService().AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: img.Digest, Type: "content"}); err != nil {
			return fmt.Errorf("hold %s: %w", img.Ref, err)
		}
	}
	return nil
}

// Export writes images as an archive that is both an OCI layout and what
// `docker load` reads. Platform is as for Pull. A lease keeps them meanwhile,
// whoever removes their names.
func (s Store) Export(ctx context.Context, refs []string, platform string, w io.Writer) (err error) {
	matcher, err := Platform(platform)
	if err != nil {
		return err
	}
	found, err := s.Find(ctx, refs)
	if err != nil {
		return err
	}
	ctx, release, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release(false)) }()
	if err := s.hold(ctx, found); err != nil {
		return err
	}
	options := []archive.ExportOpt{archive.WithPlatform(matcher)}
	for _, f := range found {
		options = append(options, archive.WithImage(s.Client.ImageService(), f.Ref))
	}
	if err := s.Client.Export(ctx, w, options...); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}
