package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
)

// hostsDir is where containerd keeps hosts.toml files: mirrors and
// certificate authorities.
const hostsDir = "/etc/containerd/certs.d"

// Pull fetches an image for this platform and unpacks it. Loopback registries
// and those in Insecure are spoken to by plain HTTP.
func (s Store) Pull(ctx context.Context, ref string) (Image, error) {
	name, err := Normalize(ref)
	if err != nil {
		return Image{}, err
	}
	ctx, release, err := s.lease(ctx)
	if err != nil {
		return Image{}, err
	}
	defer release()
	img, err := s.Client.Pull(ctx, name, containerd.WithResolver(s.resolver(ctx)),
		containerd.WithPullUnpack, containerd.WithPullSnapshotter(s.Snapshotter))
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", name, err)
	}
	return s.open(ctx, img)
}

func (s Store) resolver(ctx context.Context) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: s.hosts(ctx)})
}

// hosts chooses how each registry is spoken to.
func (s Store) hosts(ctx context.Context) docker.RegistryHosts {
	options := dockerconfig.HostOptions{HostDir: dockerconfig.HostDirFromRoot(hostsDir)}
	secure := dockerconfig.ConfigureHosts(ctx, options)
	options.DefaultScheme = "http"
	plain := dockerconfig.ConfigureHosts(ctx, options)
	return func(host string) ([]docker.RegistryHost, error) {
		local, err := docker.MatchLocalhost(host)
		if err != nil {
			return nil, err
		}
		if local || slices.Contains(s.Insecure, host) {
			return plain(host)
		}
		return secure(host)
	}
}

// Import reads an archive as `docker save` or an OCI layout makes it and
// unpacks its images.
func (s Store) Import(ctx context.Context, archive io.Reader) ([]Image, error) {
	ctx, release, err := s.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
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
