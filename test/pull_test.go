package test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/containerd/containerd/v2/pkg/namespaces"

	"carboy/image"
)

// images is `image ls --json`.
func (r *rig) images(t *testing.T) map[string]image.Listed {
	t.Helper()
	var list []image.Listed
	if err := json.Unmarshal([]byte(r.mustRun(t, "image", "ls", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	by := map[string]image.Listed{}
	for _, i := range list {
		by[i.Ref] = i
	}
	return by
}

// forget removes the test's images at its end, before the host is compared.
func (r *rig) forget(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		for ref := range r.images(t) {
			if ref != imageName {
				r.mustRun(t, "image", "rm", ref)
			}
		}
	})
}

// ingested is how many bytes containerd has of a blob that is not whole.
func (r *rig) ingested(t *testing.T, digest string) (n int64) {
	t.Helper()
	client, err := r.containerd.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	parts, err := client.ContentStore().ListStatuses(namespaces.WithNamespace(t.Context(), r.namespace))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if strings.Contains(p.Ref, digest) {
			n += p.Offset
		}
	}
	return n
}

// refused wants an end with 1 and a message.
func (o outcome) refused(t *testing.T, says ...string) {
	t.Helper()
	if o.code != 1 && o.code != 125 || o.stdout != "" {
		t.Errorf("want 1 (125 of a run) and no output: %v", o)
	}
	for _, text := range says {
		if !strings.Contains(o.stderr, text) {
			t.Errorf("the message lacks %q: %v", text, o)
		}
	}
}

func TestPull(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		r.forget(t)
		h := newHub(t)
		ref := h.ref("agent:1")
		digest := h.push(t, "agent:1", layered(t, 3, 1<<20))
		o := r.run(t, "pull", ref)
		if o.code != 0 || o.stdout != ref+"@"+digest+"\n" || strings.Count(o.stderr, "done, ") != 3 {
			t.Errorf("%v", o)
		}
		if got := r.images(t)[ref]; got.Digest != digest || got.Size < 3<<20 {
			t.Errorf("listed: %+v", got)
		}
		run := func(ref string, flags ...string) outcome {
			return r.run(t, append(append(bottle("--image", ref), flags...), "--", "echo", "hello")...)
		}
		h.fail(nil)
		if o := run(ref, "--pull", "never"); o.stdout != "hello\n" || h.asked("") != 0 {
			t.Errorf("pulled before: %v", o)
		}
		if o := run(ref); o.stdout != "hello\n" || h.asked("") != 0 {
			t.Errorf("there already: %v, %d requests", o, h.asked(""))
		}
		run(h.ref("other:1"), "--pull", "never").refused(t, "other:1", "--pull never", "carboy pull")

		// What the tag means changes; the pin does not.
		newer := h.push(t, "agent:1", layered(t, 1, 1<<10))
		if o := run(ref, "--pull", "always"); o.stdout != "hello\n" || r.images(t)[ref].Digest != newer {
			t.Errorf("newer: %v", o)
		}
		pinned := h.ref("agent@" + digest)
		if o := r.run(t, "pull", "-q", h.ref("agent:1@"+digest)); o.code != 0 || o.stdout != pinned+"\n" || o.stderr != "" {
			t.Errorf("pinned: %v", o)
		}
		if got := r.images(t)[pinned]; got.Digest != digest {
			t.Errorf("pinned: %+v", got)
		}
	})
}

// TestPullShown: a terminal shows how far each layer is, and a run's command gets
// it only after that.
func TestPullShown(t *testing.T) {
	r := newRig(t, 1)
	r.forget(t)
	h := newHub(t)
	img := layered(t, 1, 8<<20)
	h.push(t, "agent:1", img)
	more := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(more) })
	t.Cleanup(goOn)
	h.fail(blobs(lastLayer(t, img), half(t, img, func(*http.Request) { <-more })))
	s := r.open(t, append(bottle("--image", h.ref("agent:1")), "--", "echo", "the agent")...)
	s.shows(t, "4.001MiB of 8.001MiB")
	s.shows(t, "[==========          ]")
	goOn()
	s.shows(t, "done, 8.001MiB in ")
	if code := s.ends(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	if got := s.screen.String(); strings.Contains(got[strings.LastIndex(got, "the agent"):], "MiB") {
		t.Errorf("progress after the agent's start: %q", got)
	}
}

func TestPullPlatform(t *testing.T) {
	r := newRig(t, 1)
	r.forget(t)
	h := newHub(t)
	mine, other := layered(t, 1, 1<<20), builtFor(t, layered(t, 1, 4<<20), "riscv64")
	ref, err := name.ParseReference(h.ref("agent:1"))
	if err != nil {
		t.Fatal(err)
	}
	platforms := map[string]v1.Image{"linux/" + runtime.GOARCH: mine, "linux/riscv64": other}
	if err := remote.WriteIndex(ref, index(t, platforms)); err != nil {
		t.Fatal(err)
	}
	h.fail(nil)
	r.mustRun(t, "pull", ref.Name())
	if h.asked(lastLayer(t, mine)) == 0 || h.asked(lastLayer(t, other)) != 0 {
		t.Error("asked for layers of another platform, or not for this one's")
	}
	r.mustRun(t, append(bottle("--image", ref.Name()), "--", "true")...)
	r.mustRun(t, "pull", "--platform", "linux/riscv64", ref.Name())
	if h.asked(lastLayer(t, other)) == 0 {
		t.Error("--platform pulled nothing")
	}
	r.run(t, "pull", "--platform", "windows/amd64", ref.Name()).refused(t, "not there for this platform", "linux/riscv64", "--platform")
	if o := r.run(t, "pull", "--platform", "a/b/c/d", ref.Name()); o.code != 2 {
		t.Errorf("no platform: %v", o)
	}
	// An image without an index says in its configuration what it is for.
	h.push(t, "foreign:1", other)
	r.run(t, "pull", h.ref("foreign:1")).refused(t, "linux/riscv64", "--platform")
	if _, ok := r.images(t)[h.ref("foreign:1")]; ok {
		t.Error("the foreign image is there")
	}
}

// builtFor is the image with another architecture in its configuration.
func builtFor(t *testing.T, img v1.Image, arch string) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Architecture = arch
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestPullMirror(t *testing.T) {
	r := newRig(t, 0)
	r.forget(t)
	h := newHub(t)
	digest := h.push(t, "agent:1", layered(t, 1, 1<<10))
	hosts(t, "registry.test", "server = \"https://registry.test\"\n[host.\""+h.URL+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
	if o := r.run(t, "pull", "registry.test/agent:1"); o.stdout != "registry.test/agent:1@"+digest+"\n" {
		t.Errorf("by the mirror: %v", o)
	}
}

// hosts writes a registry's hosts.toml, and an authority if there is one.
func hosts(t *testing.T, registry, toml string) {
	t.Helper()
	dir := filepath.Join("/etc/containerd/certs.d", registry)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPullTogether: as one, and no blob comes twice.
func TestPullTogether(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		r.forget(t)
		h := newHub(t)
		img := layered(t, 2, 4<<20)
		digest := h.push(t, "agent:1", img)
		h.fail(nil)
		const pulls = 20
		got := make([]outcome, pulls)
		waited := false
		var all sync.WaitGroup
		for i := range pulls {
			c := r.command(t, "pull", h.ref("agent:1"))
			all.Go(func() { got[i] = finish(t, c) })
		}
		all.Wait()
		for _, o := range got {
			if o.code != 0 || o.stdout != h.ref("agent:1")+"@"+digest+"\n" {
				t.Errorf("%v", o)
			}
			waited = waited || strings.Contains(o.stderr, "waiting for another process")
		}
		if !waited {
			t.Error("nobody was told why it took longer")
		}
		if n := h.asked("GET /v2/agent/blobs/" + lastLayer(t, img)); n != 1 {
			t.Errorf("the layer was fetched %d times", n)
		}
	})
}

// TestPullFaults is what a registry can do wrong. None of it leaves an image.
func TestPullFaults(t *testing.T) {
	r := newRig(t, 1)
	r.forget(t)
	h := newHub(t)
	img := layered(t, 1, 1<<20)
	layer, size := lastLayer(t, img), len(lastBytes(t, img))
	h.push(t, "agent:1", img)
	faults := map[string]struct {
		before func(http.Handler) http.Handler
		says   []string
	}{
		"other bytes": {blobs(layer, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) }),
			[]string{"not what it promised", layer}},
		"too short": {blobs(layer, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1000)) }),
			[]string{h.host(), "broke off"}},
		"error page": {blobs(layer, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "\x1b[31moops", http.StatusInternalServerError)
		}),
			[]string{"broke off", "500"}},
		"gone": {blobs(layer, http.NotFound), []string{"no such image"}},
		"too many": {func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })
		}, []string{"limits the rate", "without credentials"}},
	}
	for what, f := range faults {
		t.Run(what, func(t *testing.T) {
			h.fail(f.before)
			o := r.run(t, "pull", h.ref("agent:1"))
			o.refused(t, append(f.says, h.ref("agent:1"))...)
			if strings.Contains(o.stderr, "\x1b") {
				t.Error("what the registry said is on the terminal as it is")
			}
			if _, ok := r.images(t)[h.ref("agent:1")]; ok {
				t.Error("there is an image")
			}
		})
	}
	h.fail(nil)
	r.run(t, "pull", h.ref("agent:2")).refused(t, "no such image", "agent:2")
	r.run(t, "pull", "127.0.0.1:9/agent:1").refused(t, "127.0.0.1:9", "cannot be reached")
	r.run(t, "pull", h.ref("agent@sha256:"+strings.Repeat("0", 64))).refused(t, "no such image")
	r.mustRun(t, "pull", h.ref("agent:1")) // the control
}

// TestPullResumes: what came before a registry died, a Ctrl-C or a SIGKILL is
// not asked for again.
func TestPullResumes(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		r.forget(t)
		h := newHub(t)
		img := layered(t, 1, 8<<20)
		layer := lastLayer(t, img)
		h.push(t, "agent:1", img)
		get := "/blobs/" + layer
		stuck := blobs(layer, half(t, img, func(r *http.Request) { <-r.Context().Done() }))

		for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGKILL} {
			h.fail(stuck)
			c := r.command(t, "pull", h.ref("agent:1"))
			said := &lockedBuffer{}
			c.Stderr = said
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a part of the layer", func() bool { return h.asked(get) == 1 && r.ingested(t, layer) > 0 })
			if err := c.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			_ = c.Wait()
			if s == os.Interrupt && (c.ProcessState.ExitCode() != 130 || !strings.Contains(said.String(), "interrupted")) {
				t.Errorf("Ctrl-C: exit %d, %s", c.ProcessState.ExitCode(), said)
			}
			if s == syscall.SIGKILL {
				if got := r.mustRun(t, "gc"); !strings.Contains(got, "pull") {
					t.Errorf("gc: %q", got)
				}
			}
			r.checkClean(t)
			if r.ingested(t, layer) == 0 {
				t.Errorf("after %v nothing is left to go on from", s)
			}
		}
		// A registry that dies in the middle, once, in one pull.
		died := false
		h.fail(blobs(layer, func(w http.ResponseWriter, req *http.Request) {
			half(t, img, func(*http.Request) {
				if !died {
					died = true
					panic(http.ErrAbortHandler)
				}
			})(w, req)
		}))
		o := r.run(t, "pull", h.ref("agent:1"))
		if o.code != 0 || !strings.Contains(o.stderr, "going on at") {
			t.Errorf("%v", o)
		}
		if h.asked(get+" bytes=") == 0 || h.asked("GET /v2/agent"+get) != h.asked(get+" bytes=") {
			t.Errorf("asked for the whole again: %q", h.requests)
		}
		r.mustRun(t, append(bottle("--image", h.ref("agent:1")), "--", "true")...)
	})
}
