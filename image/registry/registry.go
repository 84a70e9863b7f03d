// Package registry is how registries are spoken to: by which hosts and
// certificates, with whose credentials, and what their errors mean to a person.
// It knows nothing of containerd's stores.
package registry

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// HostsDir is where containerd keeps hosts.toml files: mirrors and certificate
// authorities.
const HostsDir = "/etc/containerd/certs.d"

// Access is what one pull may use.
type Access struct {
	HostsDir string   // default HostsDir
	Insecure []string // registries, as host:port, spoken to by plain HTTP
	Logins   *Logins  // nil asks anonymously
}

// Resolver finds and fetches. What is read of a blob is told to read, which is
// called by several at once.
func (a Access) Resolver(ctx context.Context, read func(ocispec.Descriptor, int)) remotes.Resolver {
	return resolver{docker.NewResolver(docker.ResolverOptions{Hosts: a.Hosts(ctx)}), read}
}

// Hosts chooses how each registry is spoken to.
func (a Access) Hosts(ctx context.Context) docker.RegistryHosts {
	dir := a.HostsDir
	if dir == "" {
		dir = HostsDir
	}
	options := dockerconfig.HostOptions{HostDir: dockerconfig.HostDirFromRoot(dir)}
	if a.Logins != nil {
		options.Credentials = func(host string) (string, string, error) { return a.Logins.find(ctx, host) }
	}
	secure := dockerconfig.ConfigureHosts(ctx, options)
	options.DefaultScheme = "http"
	plain := dockerconfig.ConfigureHosts(ctx, options)
	return func(host string) ([]docker.RegistryHost, error) {
		local, err := docker.MatchLocalhost(host)
		if err != nil {
			return nil, err
		}
		if local || slices.Contains(a.Insecure, host) {
			return plain(host)
		}
		return secure(host)
	}
}

type resolver struct {
	remotes.Resolver
	read func(ocispec.Descriptor, int)
}

func (r resolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	f, err := r.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return fetcher{f, r.read}, nil
}
