package runtime

import (
	"fmt"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/workspace"
)

// mountMapped mounts an open directory or file so that what belongs to its
// owner is the agent's, in both directions. What belongs to others is nobody's
// there: not even a container's root may do with it what its mode does not allow.
func mountMapped(from *os.File, target string, users *os.File, attributes uint64) error {
	tree, err := unix.OpenTree(int(from.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone mount: %w", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | attributes,
		Propagation: unix.MS_PRIVATE, Userns_fd: uint64(users.Fd()),
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("its file system, or this kernel (5.12 is needed, 5.19 for overlay), cannot show files as another user's: use --workspace-mode copy: %w: %w",
			err, errdefs.ErrFailedPrecondition)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

// nobodys is a number that no user has: it is the last but one.
const nobodys = 1<<32 - 3

// mapping is a user namespace that stands for the directory's owner as the
// agent. Nobody lends out more than he has: the directory must be the user's
// own. runsc makes files as root first and gives them away then: with sandbox
// root is nobody's number for that moment. The caller closes it.
func mapping(s *workspace.Source, agent workspace.Owner, sandbox bool) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.Top.Fd()), &st); err != nil {
		return nil, err
	}
	if s.User.UID != 0 && int(st.Uid) != s.User.UID {
		return nil, fmt.Errorf("it belongs to user %d, and not to %s: use --workspace-mode copy: %w", st.Uid, s.User.Name, errdefs.ErrPermissionDenied)
	}
	gid := int(st.Gid)
	if s.User.UID != 0 && !slices.Contains(append(s.User.Groups, s.User.GID), gid) {
		gid = s.User.GID
	}
	lines := func(inside, outside int) string {
		text := fmt.Sprintf("%d:%d:1", inside, outside)
		if sandbox && outside != 0 {
			text += fmt.Sprintf(",%d:0:1", nobodys)
		}
		return text
	}
	users, err := mount.GetUsernsFD(lines(int(st.Uid), agent.UID), lines(gid, agent.GID))
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	return users, nil
}
