package test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/image-spec/identity"
)

var besideDocker = flag.Bool("docker", false, "build the Dockerfiles of the tests with Docker as well (test/docker.sh), and compare")

// dockerfile is one feature of Dockerfiles: files in, /out of the image and its
// configuration out.
type dockerfile struct {
	name   string
	text   string            // after FROM the usual image and USER root, unless it has a FROM
	files  map[string]string // those named like packed ones are packed
	flags  []string
	out    []string // path, type and mode, owner, content; sorted
	config []string // parts of the image's configuration as JSON
	newer  bool     // than Docker 20.10's frontend
}

var dockerfiles = []dockerfile{
	{name: "stages", text: "FROM BASE AS one\nUSER root\nRUN mkdir /out && echo one > /out/a\nFROM BASE AS unused\nRUN exit 1\nFROM BASE\nUSER root\nCOPY --from=one /out /out\nCOPY --from=0 /out/a /out/b\n",
		out: []string{"out/ drwxr-xr-x 0:0", "out/a -rw-r--r-- 0:0 one", "out/b -rw-r--r-- 0:0 one"}},
	{name: "target", text: "FROM BASE AS one\nUSER root\nRUN mkdir /out && echo one > /out/a\nFROM one\nRUN exit 1\n", flags: []string{"--target", "one"},
		out: []string{"out/ drwxr-xr-x 0:0", "out/a -rw-r--r-- 0:0 one"}},
	{name: "heredocs", newer: true, text: "RUN <<EOF\nset -e\nmkdir /out\necho $((1+1)) > /out/a\nEOF\nCOPY <<-\"EOF\" <<EOT /out/\n\tliteral $HOME\nEOF\ntwo\nEOT\nRUN <<EOF cat > /out/c\nthree\nEOF\n",
		out: []string{"out/ drwxr-xr-x 0:0", "out/EOF -rw-r--r-- 0:0 literal $HOME", "out/EOT -rw-r--r-- 0:0 two", "out/a -rw-r--r-- 0:0 2", "out/c -rw-r--r-- 0:0 three"}},
	{name: "mounts", files: map[string]string{"f": "bound"},
		text: "RUN --mount=type=bind,source=f,target=/f --mount=type=tmpfs,target=/t mkdir /out && cp /f /out/f && touch /t/x && grep -c ' /t tmpfs ' /proc/mounts > /out/t\nRUN ls /t | wc -l > /out/after; test ! -s /f\n",
		out:  []string{"out/ drwxr-xr-x 0:0", "out/after -rw-r--r-- 0:0 0", "out/f -rw-r--r-- 0:0 bound", "out/t -rw-r--r-- 0:0 1"}},
	{name: "args", flags: []string{"--build-arg", "GIVEN=g", "--build-arg", "TAG=latest"},
		text: "ARG TAG=none\nFROM carboy.test/busybox:${TAG}\nARG GIVEN=x\nARG PLAIN=p\nARG TAG\nUSER root\nENV KEPT=$GIVEN\nRUN mkdir /out && echo \"$GIVEN $PLAIN $TAG $NONE\" > /out/a\n",
		out:  []string{"out/ drwxr-xr-x 0:0", "out/a -rw-r--r-- 0:0 g p latest"}, config: []string{`"KEPT=g"`}},
	{name: "stage args end", flags: []string{"--build-arg", "A=1"}, text: "FROM BASE AS one\nARG A\nUSER root\nRUN echo $A > /x\nFROM BASE\nUSER root\nCOPY --from=one /x /x\nRUN mkdir /out && echo \"[$A]$(cat /x)\" > /out/a\n",
		out: []string{"out/ drwxr-xr-x 0:0", "out/a -rw-r--r-- 0:0 []1"}},
	{name: "archives", files: map[string]string{"a.tar": string(archive("in/side", "packed")), "b.tar.gz": string(archive("gzip", "1")), "c.tar.bz2": string(archive("bzip2", "2")), "d.tar.xz": string(archive("xz", "3"))},
		text: "ADD a.tar b.tar.gz c.tar.bz2 d.tar.xz /out/\nCOPY a.tar /b.tar\nRUN tar -xOf /b.tar in/side > /out/again\n",
		out:  []string{"out/ drwxr-xr-x 0:0", "out/again -rw-r--r-- 0:0 packed", "out/bzip2 -rw-r--r-- 7:8 2", "out/gzip -rw-r--r-- 7:8 1", "out/in/ drwxr-xr-x 0:0", "out/in/side -rw-r--r-- 7:8 packed", "out/xz -rw-r--r-- 7:8 3"}},
	{name: "owners and modes", newer: true, files: map[string]string{"f": "text", "d/g": "g"},
		text: "COPY --chown=agent:agent f /out/named\nCOPY --chown=12:34 d /out/numbers\nCOPY --chmod=600 f /out/mode\nCOPY --link --chown=5:6 f /out/linked\n",
		out: []string{"out/ drwxr-xr-x 5:6", "out/linked -rw-r--r-- 5:6 text", "out/mode -rw------- 0:0 text", "out/named -rw-r--r-- 1000:1000 text",
			"out/numbers/ drwxr-xr-x 12:34", "out/numbers/g -rw-r--r-- 12:34 g"}},
	{name: "from an image", text: "FROM scratch\nCOPY --from=carboy.test/busybox:latest /etc/group /out/group\n",
		out: []string{"out/ drwxr-xr-x 0:0", "out/group -rw-r--r-- 0:0 root:x:0:\nagent:x:1000:"}},
	{name: "configuration",
		text:   "HEALTHCHECK --interval=5s CMD true\nSHELL [\"/bin/sh\", \"-ec\"]\nLABEL a=b\nEXPOSE 80/tcp\nVOLUME /data\nSTOPSIGNAL SIGINT\nWORKDIR /work\nENV A=1 B=2\nENTRYPOINT [\"/bin/echo\"]\nCMD [\"x\"]\nRUN false || mkdir /out\nUSER 3:4\n",
		out:    []string{"out/ drwxr-xr-x 0:0"},
		config: []string{`"Interval":5000000000`, `"CMD-SHELL","true"`, `"Shell":["/bin/sh","-ec"]`, `"a":"b"`, `"80/tcp":{}`, `"/data":{}`, `"StopSignal":"SIGINT"`, `"WorkingDir":"/work"`, `"A=1","B=2"`, `"Entrypoint":["/bin/echo"]`, `"Cmd":["x"]`, `"User":"3:4"`}},
	{name: "user of RUN", text: "RUN mkdir /out && chmod 777 /out\nUSER agent\nWORKDIR /out/w\nRUN id -u > a && pwd >> a\nUSER 7\nRUN id -u > /out/b\n",
		out: []string{"out/ drwxrwxrwx 0:0", "out/b -rw-r--r-- 7:0 7", "out/w/ drwxr-xr-x 1000:1000", "out/w/a -rw-r--r-- 1000:1000 1000\n/out/w"}},
	{name: "ignored", files: map[string]string{"a": "a", "b.log": "b", "keep.log": "k", "d/c": "c", "d/e/f": "f", ".dockerignore": "*.log\n!keep.log\nd/e\n"}, text: "COPY . /out\n",
		out: []string{"out/ drwxr-xr-x 0:0", "out/.dockerignore -rw-r--r-- 0:0 *.log\n!keep.log\nd/e", "out/Dockerfile -rw-r--r-- 0:0 ...", "out/a -rw-r--r-- 0:0 a",
			"out/d/ drwxr-xr-x 0:0", "out/d/c -rw-r--r-- 0:0 c", "out/keep.log -rw-r--r-- 0:0 k"}},
	{name: "ignored for one", files: map[string]string{"a": "a", "b": "b", ".dockerignore": "a\n", "Dockerfile.dockerignore": "b\nDockerfile*\n.dockerignore\n"}, text: "COPY . /out\n",
		out: []string{"out/ drwxr-xr-x 0:0", "out/a -rw-r--r-- 0:0 a"}},
	{name: "syntax", text: "# syntax=docker.invalid/none:1\nFROM BASE\nUSER root\nRUN mkdir /out\n", newer: true,
		out: []string{"out/ drwxr-xr-x 0:0"}},
	{name: "add-host", flags: []string{"--add-host", "mirror.test:192.0.2.7"}, text: "RUN mkdir /out && grep mirror.test /etc/hosts | cut -f1 > /out/a\n",
		out: []string{"out/ drwxr-xr-x 0:0", "out/a -rw-r--r-- 0:0 192.0.2.7"}},
}

func archive(name, text string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Uid: 7, Gid: 8, Size: int64(len(text)), Typeflag: tar.TypeReg})
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.Bytes()
}

// packed is the content of a file of that name.
func packed(t *testing.T, name, content string) string {
	t.Helper()
	program := map[string]string{".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}[filepath.Ext(name)]
	if program == "" {
		return content
	}
	c := exec.Command(program, "--stdout")
	c.Stdin = strings.NewReader(content)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return string(out)
}

func (d dockerfile) project(t *testing.T) string {
	text := strings.ReplaceAll(d.text, "BASE", imageName)
	if !strings.Contains(text, "FROM ") {
		text = "FROM " + imageName + "\nUSER root\n" + text
	}
	files := map[string]string{"Dockerfile": text}
	for name, content := range d.files {
		files[name] = packed(t, name, content)
	}
	return contextOf(t, files)
}

func TestDockerfiles(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) { r.buildAll(t, nil) })
}

// Docker's own frontend makes the same of those that it knows.
func TestDockerfilesBesideDocker(t *testing.T) {
	if !*besideDocker {
		t.Skip("takes Docker: test/docker.sh ~/.cache/carboy-deps, then go test ./test -root -docker")
	}
	needRoot(t)
	engine := startDocker(t)
	r := &rig{World: shared.world, containerd: shared.machines[1], namespace: "beside-docker"}
	r.importImage(t, shared.archive)
	r.buildAll(t, func(d dockerfile, dir string, tree []string, config string) {
		if !d.newer {
			d.compare(t, engine, dir, tree, config)
		}
	})
}

func (r *rig) buildAll(t *testing.T, then func(d dockerfile, dir string, tree []string, config string)) {
	t.Helper()
	for _, d := range dockerfiles {
		dir := d.project(t)
		o := r.build(t, dir, d.flags...)
		if o.code != 0 {
			t.Errorf("%s: %v", d.name, o)
			continue
		}
		tree, config := r.built(t)
		if !slices.Equal(tree, d.out) {
			t.Errorf("%s: the image has\n%s\nnot\n%s", d.name, strings.Join(tree, "\n"), strings.Join(d.out, "\n"))
		}
		for _, part := range d.config {
			if !strings.Contains(config, part) {
				t.Errorf("%s: the configuration has no %s: %s", d.name, part, config)
			}
		}
		if then != nil {
			then(d, dir, tree, config)
		}
	}
}

// compare builds the same with Docker.
func (d dockerfile) compare(t *testing.T, engine docker, dir string, tree []string, config string) {
	t.Helper()
	c := engine.command(append(append([]string{"build", "-q", "-t", "compared"}, d.flags...), dir)...)
	c.Env = append(c.Env, "DOCKER_BUILDKIT=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%s: docker: %v\n%s", d.name, err, out)
		return
	}
	id := engine.run(t, "create", "compared", "x")
	packed, err := engine.command("cp", "-a", id+":/out", "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	engine.run(t, "rm", id)
	if lines := tarLines(t, packed); !slices.Equal(lines, tree) {
		t.Errorf("%s: Docker's image has\n%s\nours\n%s", d.name, strings.Join(lines, "\n"), strings.Join(tree, "\n"))
	}
	var ours, theirs map[string]any
	for text, into := range map[string]*map[string]any{config: &ours, engine.run(t, "inspect", "--format", "{{json .Config}}", "compared"): &theirs} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Shell", "Healthcheck", "OnBuild"} {
		if a, b := fmt.Sprint(ours[key]), fmt.Sprint(theirs[key]); a != b && (!unset(ours[key]) || !unset(theirs[key])) {
			t.Errorf("%s: %s is %s, Docker's %s", d.name, key, a, b)
		}
	}
}

func unset(v any) bool {
	return v == nil || v == "" || fmt.Sprint(v) == "[]" || fmt.Sprint(v) == "map[]"
}

func tarLines(t *testing.T, packed []byte) (lines []string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(packed)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, treeLine(strings.TrimSuffix(h.Name, "/"), h.FileInfo().Mode(), h.Uid, h.Gid, h.Linkname, b))
	}
	slices.Sort(lines)
	return lines
}

func treeLine(path string, mode fs.FileMode, uid, gid int, link string, content []byte) string {
	switch {
	case mode.IsDir():
		return fmt.Sprintf("%s/ %v %d:%d", path, mode, uid, gid)
	case mode&fs.ModeSymlink != 0:
		return path + " -> " + link
	case filepath.Base(path) == "Dockerfile":
		return fmt.Sprintf("%s %v %d:%d ...", path, mode, uid, gid)
	}
	return fmt.Sprintf("%s %v %d:%d %s", path, mode, uid, gid, strings.TrimSpace(string(content)))
}

// built reads /out and the configuration of what was built.
func (r *rig) built(t *testing.T) (tree []string, config string) {
	t.Helper()
	client, err := r.containerd.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(t.Context(), r.namespace)
	img, err := client.GetImage(ctx, builtName)
	if err != nil {
		t.Fatal(err)
	}
	if unpacked, err := img.IsUnpacked(ctx, "overlayfs"); err != nil || !unpacked {
		t.Fatalf("unpacked: %v, %v", unpacked, err)
	}
	desc, err := img.Config(ctx)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := content.ReadBlob(ctx, client.ContentStore(), desc)
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ Config json.RawMessage }
	if err := json.Unmarshal(blob, &c); err != nil {
		t.Fatal(err)
	}
	inSnapshot(ctx, t, client, img, func(root string) { tree = readTree(t, root) })
	return tree, string(c.Config)
}

func inSnapshot(ctx context.Context, t *testing.T, client *containerd.Client, img containerd.Image, f func(root string)) {
	t.Helper()
	diffs, err := img.RootFS(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := client.LeasesService().Create(ctx, leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	ctx = leases.WithLease(ctx, lease.ID)
	defer func() { _ = client.LeasesService().Delete(ctx, lease, leases.SynchronousDelete) }()
	mounts, err := client.SnapshotService("overlayfs").View(ctx, "looked-at", identity.ChainID(diffs).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.SnapshotService("overlayfs").Remove(ctx, "looked-at") }()
	root := t.TempDir()
	if err := mount.All(mounts, root); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mount.UnmountAll(root, 0) }()
	f(root)
}

func readTree(t *testing.T, root string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(root, "out"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		var text []byte
		link := ""
		switch {
		case st.Mode().IsRegular():
			text, err = os.ReadFile(path)
		case st.Mode()&fs.ModeSymlink != 0:
			link, err = os.Readlink(path)
		}
		own := st.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(root, path)
		lines = append(lines, treeLine(rel, st.Mode(), int(own.Uid), int(own.Gid), link, text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// Links, modes and times of the context come through as they are.
func TestBuildContextAsItIs(t *testing.T) {
	r := newRig(t, 0)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY in /out\n", "in/script": "x", "in/closed": "y", "in/d/f": "z"})
	for path, mode := range map[string]os.FileMode{"in/script": 0o755, "in/closed": 0o600, "in/d": 0o711 | os.ModeSetgid} {
		if err := os.Chmod(filepath.Join(dir, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"in/up": "../../etc/shadow", "in/absolute": "/etc/shadow", "in/near": "d/f"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	r.mustBuild(t, dir)
	tree, _ := r.built(t)
	want := []string{"out/ drwxr-xr-x 0:0", "out/absolute -> /etc/shadow", "out/closed -rw------- 0:0 y", "out/d/ dgrwx--x--x 0:0", "out/d/f -rw-r--r-- 0:0 z", "out/near -> d/f", "out/script -rwxr-xr-x 0:0 x", "out/up -> ../../etc/shadow"}
	if !slices.Equal(tree, want) {
		t.Errorf("the image has\n%s\nnot\n%s", strings.Join(tree, "\n"), strings.Join(want, "\n"))
	}
}

// A base with ONBUILD, and a cache that lives from one build to the next.
func TestBuildOnBuild(t *testing.T) {
	r := newRig(t, 1)
	const base = "carboy.test/onbuild:latest"
	t.Cleanup(func() { r.unbuild(t, base) })
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + imageName + "\nUSER root\nONBUILD COPY f /out/f\nONBUILD RUN --mount=type=cache,target=/c echo x >> /c/n && wc -l < /c/n > /out/n\n"})
	r.mustRun(t, "build", "-q", "-t", base, dir)
	dir = contextOf(t, map[string]string{"Dockerfile": "FROM " + base + "\n", "f": "triggered"})
	for _, want := range []string{"1", "2"} {
		// A changed file, and RUN is run again.
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("triggered "+want), 0o644); err != nil {
			t.Fatal(err)
		}
		r.mustBuild(t, dir)
		if tree, _ := r.built(t); !slices.Equal(tree, []string{"out/ drwxr-xr-x 0:0", "out/f -rw-r--r-- 0:0 triggered " + want, "out/n -rw-r--r-- 0:0 " + want}) {
			t.Errorf("the image has %q, not %s", tree, want)
		}
	}
	c := r.command(t, "build", "-q", "-t", builtName, dir)
	c.Env = append(c.Env, "SUDO_UID=65534", "SUDO_GID=65534")
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if o := finish(t, c); o.code != 0 {
		t.Fatal(o)
	}
	if tree, _ := r.built(t); !slices.Contains(tree, "out/n -rw-r--r-- 0:0 1") {
		t.Errorf("another's build sees root's cache: %q", tree)
	}
}
