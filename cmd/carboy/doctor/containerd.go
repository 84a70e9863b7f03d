package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

func containerd(ctx context.Context, p *Patient) Finding {
	if p.daemonErr != nil {
		return unreachable(p.daemonErr)
	}
	version, err := p.daemon.Version(ctx)
	if err != nil {
		return failed(err)
	}
	return judge(version, p.Address)
}

// unreachable: that its socket is root's is as it should be.
func unreachable(err error) Finding {
	if errdefs.IsPermissionDenied(err) {
		return warn(words(err), "run `sudo carboy doctor`")
	}
	what, out, _ := strings.Cut(words(err), ": ")
	return fail(what, out)
}

// The support range of README.md.
var (
	oldest = []int{1, 6, 20}
	newest = []int{2, 4}
)

func judge(version, address string) Finding {
	found := fmt.Sprintf("%s at %s", version, address)
	n, known := numbers(version)
	switch {
	case !known:
		return warn(found+": not the version of a release", "carboy is tested with 1.6.20 to 2.4")
	case slices.Compare(n, oldest) < 0:
		return fail(found+" is too old", "update it to 1.6.20 or newer")
	case slices.Compare(n[:len(newest)], newest) > 0:
		return warn(found+" is newer than carboy was tested with, 2.4", "")
	}
	return ok(found)
}

var release = regexp.MustCompile(`^v?(\d+)\.(\d+)(?:\.(\d+))?`)

// numbers are the three of a release; distributions add theirs behind.
func numbers(version string) (n []int, known bool) {
	m := release.FindStringSubmatch(version)
	if m == nil {
		return nil, false
	}
	for _, text := range m[1:] {
		i, _ := strconv.Atoi(text) // digits, or nothing, which is 0
		n = append(n, i)
	}
	return n, true
}

func snapshotter(ctx context.Context, p *Patient) Finding {
	name := p.Snapshotter
	if err := p.daemon.Snapshotter(ctx); err != nil {
		return fail(fmt.Sprintf("%s cannot be used: %s", name, words(err)), "`ctr plugins ls` shows those that work, and why others do not: choose one with --snapshotter")
	}
	if name != "overlayfs" {
		return warn(name+" works, but projects need overlayfs", "leave out --snapshotter")
	}
	return ok(name)
}

// others' use them, and remove what they do not know.
var others = map[string]string{"moby": "Docker", "k8s.io": "Kubernetes, which removes images", "buildkit": "BuildKit"}

func namespace(ctx context.Context, p *Patient) Finding {
	if who, taken := others[p.Namespace]; taken {
		return warn(fmt.Sprintf("%q is that of %s", p.Namespace, who), "choose one of carboy's own with --namespace")
	}
	all, err := p.daemon.Namespaces(ctx)
	if err != nil {
		return failed(err)
	}
	if !slices.Contains(all, p.Namespace) {
		return ok(fmt.Sprintf("%q is not there yet: the first use makes it", p.Namespace))
	}
	images, err := p.daemon.Images(ctx)
	if err != nil {
		return failed(err)
	}
	return ok(fmt.Sprintf("%q, images: %d", p.Namespace, len(images)))
}

func disk(ctx context.Context, p *Patient) Finding {
	root, err := p.daemon.Root(ctx)
	if err != nil {
		return warn(words(err), "")
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return warn((&fs.PathError{Op: "statfs", Path: root, Err: err}).Error(), "")
	}
	return space(root, st)
}

// Below low an image does not fit; below scarce a build or two does not.
const (
	low    = 256 << 20
	scarce = 2 << 30
	files  = 10000 // an image has as many
)

func space(root string, st unix.Statfs_t) Finding {
	free, all := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
	found := fmt.Sprintf("%s of %s free in %s", units.BytesSize(float64(free)), units.BytesSize(float64(all)), root)
	const out = "`carboy image prune --all` and `carboy build prune` free what no bottle uses"
	noFiles := st.Files > 0 && st.Ffree < files // some file systems count none
	if noFiles {
		found += fmt.Sprintf(", and room for %d files", st.Ffree)
	}
	switch {
	case free < low:
		return fail(found, out)
	case free < scarce || noFiles:
		return warn(found, out)
	}
	return ok(found)
}
