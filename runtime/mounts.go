package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/bottlespec"
	"carboy/runtime/workspace"
)

// mountsDir has what a bottle shows of the host, numbered as in its plan.
func (r Record) mountsDir() string { return filepath.Join(r.dir(), "mounts") }

func (r Record) mountAt(i int) string { return filepath.Join(r.mountsDir(), strconv.Itoa(i)) }

// placeMounts makes what belongs to who asked the agent's, for this bottle.
func (b *Bottle) placeMounts(root *os.File, owner workspace.Owner) error {
	for i, m := range b.plan.Mounts {
		if err := b.placeMount(root, i, owner); err != nil {
			return fmt.Errorf("mount %q: %w", m.Source, err)
		}
	}
	return nil
}

func (b *Bottle) placeMount(root *os.File, i int, owner workspace.Owner) (err error) {
	m, source, at := b.plan.Mounts[i], b.options.Mounts[i], b.mountAt(i)
	st, err := source.Top.Stat()
	if err != nil {
		return err
	}
	if err := checkTarget(root, m.Target, st.IsDir()); err != nil {
		return err
	}
	if m.Writable {
		if err := b.refuseWritable(source.Top, st.IsDir()); err != nil {
			return err
		}
	}
	if st.IsDir() {
		err = os.MkdirAll(at, 0o700)
	} else if err = os.MkdirAll(filepath.Dir(at), 0o700); err == nil {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return err
	}
	users, err := mapping(source, owner, b.options.Runsc != "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, users.Close()) }()
	var attributes uint64
	if !m.Writable {
		attributes = unix.MOUNT_ATTR_RDONLY
	}
	return mountMapped(source.Top, at, users, attributes)
}

// refuseWritable: what programs of the host take commands from is not given to
// an agent to write; bind mode of the workspace guards it.
func (b *Bottle) refuseWritable(f *os.File, isDir bool) error {
	if err := refuseRoots(f); err != nil {
		return err
	}
	at, err := os.Readlink(descriptor(f))
	if err != nil {
		return err
	}
	for element := range strings.SplitSeq(at, "/") {
		if slices.Contains(guarded, element) {
			return fmt.Errorf("programs of the host take commands from what is in %s: no agent is to write there: %w", element, errdefs.ErrPermissionDenied)
		}
	}
	if s := b.options.Source; s != nil {
		project, err := os.Readlink(descriptor(s.Top))
		if err != nil || within(project, at) || within(at, project) {
			return errors.Join(fmt.Errorf("the workspace is there: %w", errdefs.ErrInvalidArgument), err)
		}
	}
	for _, name := range guarded {
		var st unix.Stat_t
		if isDir && !errors.Is(unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW), fs.ErrNotExist) {
			return fmt.Errorf("%s is in it, from which programs of the host take commands: use --workspace with --workspace-mode bind, which guards it: %w", name, errdefs.ErrPermissionDenied)
		}
	}
	return nil
}

func descriptor(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func (b *Bottle) mountBinds() []bottlespec.Bind {
	var binds []bottlespec.Bind
	for i, m := range b.plan.Mounts {
		binds = append(binds, bottlespec.Bind{Source: b.mountAt(i), Target: m.Target, Writable: m.Writable})
	}
	return binds
}

// OpenMount opens what a mount shows, as who asks: a directory or a regular
// file. The caller closes it.
func OpenMount(m MountPlan, source workspace.Source) (*workspace.Source, error) {
	top, err := source.User.OpenAny(source.Path)
	if err != nil {
		return nil, m.at.Fault(fmt.Errorf("mount: %w: %w", err, errdefs.ErrInvalidArgument))
	}
	source.Top = top
	st, err := top.Stat()
	if err == nil && !st.IsDir() && !st.Mode().IsRegular() {
		err = fmt.Errorf("mount %q: neither a directory nor a regular file: %w", m.Source, errdefs.ErrInvalidArgument)
	}
	real, readErr := os.Readlink(descriptor(top))
	if err = errors.Join(err, readErr); err == nil {
		err = MountPlan{Source: real, Target: m.Target}.check() // a link may lead to what no agent is shown
	}
	if err != nil {
		return nil, errors.Join(m.at.Fault(err), top.Close())
	}
	return &source, nil
}
