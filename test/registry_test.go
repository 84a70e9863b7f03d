package test

import (
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	fakes "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"carboy/test/world"
)

// hub is a registry on loopback that a test can make fail.
type hub struct {
	*httptest.Server
	mu       sync.Mutex
	before   func(http.Handler) http.Handler // nil is none
	requests []string                        // method, path and range
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{}
	store := fakes.New(fakes.Logger(log.New(io.Discard, "", 0)))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
		handler := store
		if h.before != nil {
			handler = h.before(store)
		}
		h.mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

// fail puts a handler before the registry from now on, and forgets requests.
func (h *hub) fail(before func(http.Handler) http.Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before, h.requests = before, nil
}

// asked counts requests with that text in them.
func (h *hub) asked(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(h.requests), func(r string) bool { return !strings.Contains(r, text) }))
}

func (h *hub) host() string { return strings.TrimPrefix(h.URL, "http://") }

// ref is a reference into the hub.
func (h *hub) ref(path string) string { return h.host() + "/" + path }

// push stores an image and returns its digest.
func (h *hub) push(t *testing.T, path string, img v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(h.ref(path))
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// layered is the usual image with further layers of random bytes, each of that
// size, and none with such of another test.
func layered(t *testing.T, layers int, size int) v1.Image {
	t.Helper()
	img, err := tarball.ImageFromPath(shared.archive, nil)
	for i := range layers {
		if err != nil {
			t.Fatal(err)
		}
		img, err = mutate.AppendLayers(img, randomLayer(t, fmt.Sprintf("home/agent/%d", i), size))
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func randomLayer(t *testing.T, path string, size int) v1.Layer {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.Read(b)
	file := filepath.Join(t.TempDir(), "layer.tar")
	if err := world.WriteLayer(file, path, b); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// lastLayer is the digest of an image's last layer.
func lastLayer(t *testing.T, img v1.Image) string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[len(layers)-1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// lastBytes are that layer's, as a registry sends them.
func lastBytes(t *testing.T, img v1.Image) []byte {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	body, err := layers[len(layers)-1].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// index is one image for each platform, as os/arch.
func index(t *testing.T, images map[string]v1.Image) v1.ImageIndex {
	t.Helper()
	var all v1.ImageIndex = empty.Index
	for platform, img := range images {
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		all = mutate.AppendManifests(all, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p}})
	}
	return all
}

// blobs puts a handler before downloads of one blob only.
func blobs(digest string, f http.HandlerFunc) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+digest) {
				f(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// half sends what is asked for of an image's last layer, and calls f half way to
// its end.
func half(t *testing.T, img v1.Image, f func(*http.Request)) http.HandlerFunc {
	t.Helper()
	b := lastBytes(t, img)
	return func(w http.ResponseWriter, r *http.Request) {
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
			w.WriteHeader(http.StatusPartialContent)
		}
		middle := from + (len(b)-from)/2
		_, _ = w.Write(b[from:middle])
		_ = http.NewResponseController(w).Flush()
		f(r)
		_, _ = w.Write(b[middle:])
	}
}

// guarded wants a user and a password, by the given challenge.
func guarded(challenge string, allowed func(*http.Request) bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !allowed(r) {
				w.Header().Set("WWW-Authenticate", challenge)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}
