package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"carboy/image"
	"carboy/test/world"
)

// TestImages: export, import, rm and prune, and what a bottle uses.
func TestImages(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		h := newHub(t)
		a, b := h.ref("a:1"), h.ref("b:1")
		img := layered(t, 1, 1<<20)
		digest := h.push(t, "a:1", img)
		h.push(t, "b:1", layered(t, 1, 2<<20))
		r.mustRun(t, "pull", a)
		r.mustRun(t, "pull", b)

		file := filepath.Join(t.TempDir(), "images.tar")
		if o := r.run(t, "image", "export", a, b); o.code != 2 || !strings.Contains(o.stderr, "-o") {
			t.Errorf("export to nowhere: %v", o)
		}
		r.mustRun(t, "image", "export", "-o", file, a, b)
		r.run(t, "image", "export", "-o", file, "nothere").refused(t, "nothere", "image ls")
		if o := r.run(t, "image", "export", "-o", t.TempDir(), a); o.code != 2 || !strings.Contains(o.stderr, "not a regular file") {
			t.Errorf("export over a directory: %v", o)
		}

		l := r.start(t, "--image", a)
		r.run(t, "image", "rm", a).refused(t, a, "bottle "+l.name, "-f")
		if got := r.mustRun(t, "image", "prune", "--all"); strings.Contains(got, a) || !strings.Contains(got, "removed "+b) || !strings.Contains(got, "freed 4") {
			t.Errorf("prune beside a bottle: %q", got)
		}
		r.importImage(t, shared.archive) // it was pruned, too
		if got := r.mustRun(t, "image", "rm", "-f", digest[:19]); got != a+"\n" {
			t.Errorf("rm by digest: %q", got)
		}
		if o := l.exec(t, "echo", "lives"); o.stdout != "lives\n" {
			t.Errorf("the bottle without its image: %v", o)
		}
		l.stop(t)

		if got := r.mustRun(t, "image", "import", file); !strings.Contains(got, a) || !strings.Contains(got, b) {
			t.Errorf("import: %q", got)
		}
		if got := r.images(t)[a]; got.Digest != digest {
			t.Errorf("imported: %+v, want %s", got, digest)
		}
		r.mustRun(t, append(bottle("--image", a, "--pull", "never"), "--", "true")...)
		var pruned struct {
			Images []image.Listed
			Freed  int64
		}
		if err := json.Unmarshal([]byte(r.mustRun(t, "image", "prune", "--all", "--dry-run", "--json")), &pruned); err != nil || len(pruned.Images) != 3 {
			t.Errorf("%+v, %v", pruned, err)
		}
		r.mustRun(t, "image", "rm", a, b)
		r.run(t, "image", "rm", a).refused(t, a, "image ls")
	})
}

// TestExportAsInvoker: the archive is the user's, and goes where he may write.
func TestExportAsInvoker(t *testing.T) {
	r := newRig(t, 1)
	home := account(t, "ada", 4321)
	export := func(path string) outcome {
		c := r.command(t, "image", "export", "-o", path, imageName)
		c.Env = append(c.Env, "SUDO_UID=4321", "SUDO_GID=4321")
		return finish(t, c)
	}
	file := filepath.Join(home, "image.tar")
	if o := export(file); o.code != 0 {
		t.Error(o)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil || st.Uid != 4321 {
		t.Errorf("uid %d, %v", st.Uid, err)
	}
	kept := filepath.Join(t.TempDir(), "kept") // of root
	write(t, kept, "kept", 0o644)
	if o := export(kept); o.code != 2 || !strings.Contains(o.stderr, "ermission denied") {
		t.Errorf("over a file of root: %v", o)
	}
	if b, err := os.ReadFile(kept); string(b) != "kept" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestPullFullDisk: a full disk is named, and what it took is given back.
func TestPullFullDisk(t *testing.T) {
	for i := range shared.machines {
		t.Run(shared.machines[i].Version.Name, func(t *testing.T) { testPullFullDisk(t, shared.machines[i].Version) })
	}
}

func testPullFullDisk(t *testing.T, v world.Version) {
	needRoot(t)
	c, err := shared.world.Containerd(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", c.Root, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(c.Root, 0); err != nil {
			t.Error(err)
		}
	})
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rig{World: shared.world, containerd: c, namespace: "full"}
	h := newHub(t)
	h.push(t, "small:1", layered(t, 1, 1<<10))
	big := layered(t, 2, 16<<20)
	h.push(t, "big:1", big)
	// The control, which also makes what the first use of a host leaves.
	r.mustRun(t, "pull", h.ref("small:1"))
	r.mustRun(t, "image", "rm", h.ref("small:1"))
	free := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Statfs(c.Root, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bfree * uint64(st.Bsize)
	}
	before := free()
	if r.before, err = r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.run(t, "pull", h.ref("big:1")).refused(t, h.ref("big:1"), "no space left", c.Root, "image prune")
	r.checkClean(t)
	if got := r.images(t); len(got) != 0 {
		t.Errorf("images: %v", got)
	}
	const slack = 1 << 20 // of containerd's databases
	if after := free(); after+slack < before {
		t.Errorf("%d bytes were free before, %d after", before, after)
	}
	r.mustRun(t, "pull", h.ref("small:1"))

	// A bottle needs room, too. The runtime's probe is done before.
	r.run(t, bottle("--image", h.ref("small:1"), "--runtime", "runsc", "--", "true")...)
	if r.before, err = r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(c.Root, "full")
	fill(t, full)
	run := bottle("--image", h.ref("small:1"), "--", "echo", "it ran")
	o := r.run(t, run...) // which may do with what is in the databases
	refused := o.code == 125 && o.stdout == "" && strings.Contains(o.stderr, "no space left")
	if ran := o.code == 0 && o.stdout == "it ran\n"; !ran && !refused {
		t.Errorf("on a full disk: %v", o)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	r.sweep(t, "full disk")
	r.checkClean(t)
	if o := r.run(t, run...); o.stdout != "it ran\n" {
		t.Errorf("afterwards: %v", o)
	}
}
