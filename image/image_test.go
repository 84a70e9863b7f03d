package image

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	fakes "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"carboy/image/registry"
)

func TestNormalize(t *testing.T) {
	const digest = "@sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for ref, want := range map[string]string{
		"busybox":                    "docker.io/library/busybox:latest",
		"busybox:1.36":               "docker.io/library/busybox:1.36",
		"me/agent":                   "docker.io/me/agent:latest",
		"index.docker.io/me/agent":   "docker.io/me/agent:latest",
		"ghcr.io/a/b:2.3.0":          "ghcr.io/a/b:2.3.0",
		"localhost:5000/a":           "localhost:5000/a:latest",
		"registry.test/a" + digest:   "registry.test/a" + digest,
		"registry.test/a:1" + digest: "registry.test/a" + digest, // a pin needs no tag
	} {
		got, err := Normalize(ref)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", ref, got, err, want)
		}
		if again, err := Normalize(got); err != nil || again != got {
			t.Errorf("%s normalised again: %s, %v", ref, again, err)
		}
	}
	for _, bad := range []string{"", "Upper", "a b", "a:", "a@sha256:1", "https://registry.test/a", "../a", "-a", "a\x00", strings.Repeat("a", 64)} {
		if got, err := Normalize(bad); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "image reference") {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

func TestSchemeOfARegistry(t *testing.T) {
	hosts := registry.Access{Insecure: []string{"registry.test:5000"}}.Hosts(t.Context())
	for host, want := range map[string]string{
		"registry.test:5000": "http", "registry.test": "https", "registry.test:5001": "https", "docker.io": "https",
		"localhost:5000": "http", "127.0.0.1:5000": "http",
	} {
		got, err := hosts(host)
		if err != nil || len(got) == 0 {
			t.Errorf("%s: %v", host, err)
			continue
		}
		for _, h := range got {
			if h.Scheme != want {
				t.Errorf("%s is spoken to by %s", host, h.Scheme)
			}
		}
	}
}

func TestResolverAsksARegistry(t *testing.T) {
	server := httptest.NewServer(fakes.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(host + "/agent:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, empty.Image, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	want, err := empty.Image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	resolver := registry.Access{}.Resolver(t.Context(), nil)
	if _, desc, err := resolver.Resolve(t.Context(), host+"/agent:1"); err != nil || desc.Digest.String() != want.String() {
		t.Errorf("%s, %v, want %s", desc.Digest, err, want)
	}
	if _, _, err := resolver.Resolve(t.Context(), host+"/agent:2"); !errdefs.IsNotFound(err) {
		t.Errorf("a tag that is not there: %v", err)
	}
}
