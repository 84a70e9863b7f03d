package world

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// AgentUID is the user "agent" of every image made here.
const AgentUID = 1000

// Image is a small image of busybox.
type Image struct {
	Name       string // with tag; default carboy.test/busybox:latest
	User       string // default agent
	Env        []string
	Cmd        []string // default sh
	Entrypoint []string
	WorkingDir string // default /home/agent
	// Files are added by their path, executable and root's.
	Files map[string][]byte
	// Raw are entries added last as they are: links, devices, whatever an image
	// may hold. A regular file's size is set.
	Raw []Entry
	// Layer is the file of a further layer, an uncompressed tar.
	Layer string
}

// Entry is one entry of a layer.
type Entry struct {
	tar.Header
	Data []byte
}

// Write writes the image as a tar that containerd imports.
func (i Image) Write(file string) error {
	if i.Name == "" {
		i.Name = "carboy.test/busybox:latest"
	}
	tag, err := name.NewTag(i.Name)
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	img, err := i.build()
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	return nil
}

func (i Image) build() (v1.Image, error) {
	entries, err := i.entries()
	if err != nil {
		return nil, err
	}
	content, err := pack(entries)
	if err != nil {
		return nil, err
	}
	layers := []tarball.Opener{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
	if i.Layer != "" {
		layers = append(layers, func() (io.ReadCloser, error) { return os.Open(i.Layer) })
	}
	img := empty.Image
	for _, open := range layers {
		layer, err := tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.NoCompression))
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = v1.Config{
		User: or(i.User, "agent"), Env: append([]string{"PATH=/bin"}, i.Env...), Cmd: i.Cmd, Entrypoint: i.Entrypoint,
		WorkingDir: or(i.WorkingDir, "/home/agent"),
	}
	if len(i.Cmd) == 0 && len(i.Entrypoint) == 0 {
		file.Config.Cmd = []string{"sh"}
	}
	return mutate.ConfigFile(img, file)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (i Image) entries() ([]Entry, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: install busybox-static, or run `make deps`", err)
	}
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the applets of %s: %w", busybox, err)
	}
	entries := []Entry{
		dir("bin", 0o755, 0), dir("dev", 0o755, 0), dir("etc", 0o755, 0), dir("home", 0o755, 0), dir("home/agent", 0o755, AgentUID),
		dir("proc", 0o555, 0), dir("root", 0o700, 0), dir("run", 0o755, 0), dir("sys", 0o555, 0), dir("tmp", 0o1777, 0),
		dir("usr", 0o755, 0), dir("var", 0o755, 0),
		regular("bin/busybox", binary, 0o755),
		regular("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\n"), 0o644),
		regular("etc/group", []byte("root:x:0:\nagent:x:1000:\n"), 0o644),
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			entries = append(entries, Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox"}})
		}
	}
	return append(append(entries, i.files()...), i.Raw...), nil
}

// files adds the directories on the way to each file.
func (i Image) files() []Entry {
	var entries []Entry
	made := map[string]bool{".": true, "bin": true, "etc": true, "home": true, "home/agent": true, "root": true, "tmp": true, "usr": true, "var": true}
	for _, p := range slices.Sorted(maps.Keys(i.Files)) {
		clean := strings.TrimPrefix(path.Clean("/"+p), "/")
		var parents []string
		for d := path.Dir(clean); !made[d]; d = path.Dir(d) {
			made[d] = true
			parents = append(parents, d)
		}
		for _, d := range slices.Backward(parents) {
			entries = append(entries, dir(d, 0o755, 0))
		}
		entries = append(entries, regular(clean, i.Files[p], 0o755))
	}
	return entries
}

func dir(name string, mode int64, uid int) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: uid, Gid: uid}}
}

func regular(name string, data []byte, mode int64) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, Data: data}
}

// WriteLayer writes a layer of one file, uncompressed.
func WriteLayer(file, path string, data []byte) error {
	b, err := pack([]Entry{regular(path, data, 0o644)})
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

func pack(entries []Entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.Data))
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, fmt.Errorf("entry %s: %w", e.Name, err)
		}
		if _, err := w.Write(e.Data); err != nil {
			return nil, fmt.Errorf("entry %s: %w", e.Name, err)
		}
	}
	return b.Bytes(), w.Close()
}

// Import imports what Write has written, by the plain client, unpacks it and
// returns its name. ctx carries the containerd namespace.
func (c *Containerd) Import(ctx context.Context, file string) (name string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	client, err := c.Client()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	images, err := client.Import(ctx, f)
	if err != nil {
		return "", fmt.Errorf("import %s: %w", file, err)
	}
	if len(images) != 1 {
		return "", fmt.Errorf("import %s: %d images, want 1", file, len(images))
	}
	return images[0].Name, containerd.NewImage(client, images[0]).Unpack(ctx, "overlayfs")
}
