package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/workspace"
)

// openImage opens the root of the agent's image for reading. The image is
// hostile: what is in it is opened with openat2 only.
func (b *Bottle) openImage(ctx context.Context) (*os.File, error) {
	snapshots := b.host.Client.SnapshotService(b.host.Snapshotter)
	key := b.Instance + "-i"
	mounts, err := snapshots.View(ctx, key, b.images.agent.Parent)
	if err != nil {
		return nil, fmt.Errorf("view image %s: %w", b.Image, err)
	}
	l, err := layersOf(mounts)
	if err != nil {
		return nil, errors.Join(err, snapshots.Remove(ctx, key))
	}
	// The image stays when the view goes: the bottle's own root is on it.
	root, err := openLayers(l.lowers)
	return root, errors.Join(err, snapshots.Remove(ctx, key))
}

// workspaceOwner is whom the files of the workspace are to belong to, as
// carboy-init will find the same user.
func (b *Bottle) workspaceOwner(root *os.File) (workspace.Owner, error) {
	passwd, err := readInRoot(root, "etc/passwd")
	if err != nil {
		return workspace.Owner{}, err
	}
	group, err := readInRoot(root, "etc/group")
	if err != nil {
		return workspace.Owner{}, err
	}
	u, err := user.GetExecUser(b.command.User, &user.ExecUser{Home: "/"}, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		return workspace.Owner{}, fmt.Errorf("user %q in image %s: %w: %w", b.command.User, b.Image, err, errdefs.ErrInvalidArgument)
	}
	return workspace.Owner{UID: u.Uid, GID: u.Gid}, nil
}

// readInRoot follows links as the container would, and reads at most 1 MiB of a
// regular file. A missing one is empty. Nothing else is opened, not even to be
// refused: an image can hold any device of the host, and to open one can be to
// start it.
func readInRoot(root *os.File, name string) (_ string, err error) {
	const limit = 1 << 20
	fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s in the image: %w", name, err)
	}
	found := os.NewFile(uintptr(fd), name)
	defer func() { err = errors.Join(err, found.Close()) }()
	if st, err := found.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > limit {
		return "", errors.Join(fmt.Errorf("%s in the image is not a regular file of at most 1 MiB", name), err)
	}
	f, err := os.Open(descriptor(found))
	if err != nil {
		return "", fmt.Errorf("%s in the image: %w", name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err := io.ReadAll(io.LimitReader(f, limit))
	return string(text), err
}

// checkTarget refuses a target that the image leads elsewhere: what is shown
// there would lie over something that the container relies on, or could not lie there.
func checkTarget(root *os.File, target string, isDir bool) error {
	fd, err := beneath.Open(int(root.Fd()), strings.TrimPrefix(target, "/"), unix.O_PATH, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("in the image the target %s is, or goes through, a link or what is no directory: %w", target, errdefs.ErrFailedPrecondition)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	kind := st.Mode & unix.S_IFMT
	if fits := kind == unix.S_IFDIR && isDir || kind == unix.S_IFREG && !isDir; err == nil && !fits {
		err = fmt.Errorf("in the image the target %s is a link, or of another kind than what is to be there: %w", target, errdefs.ErrFailedPrecondition)
	}
	return errors.Join(err, unix.Close(fd))
}
