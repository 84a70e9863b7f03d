package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/bottlespec"
	"carboy/runtime/workspace"
)

// guarded is what programs of the host take commands from. An agent that works
// on the live directory finds it read-only, where it is there. All of it is at
// the top, whole: what is above a mount could be moved away with it. Of .git no
// part can be left out, as one new file, commondir, leads git elsewhere.
var guarded = []string{
	".git", ".envrc", ".mcp.json", ".claude", ".codex", ".agents", ".cursor", ".gemini", ".vscode", ".idea", ".husky", ".carboy",
}

// bindWorkspace shows the live directory.
func (b *Bottle) bindWorkspace(owner workspace.Owner) (err error) {
	top := b.options.Source.Top
	if err := refuseRoots(top); err != nil {
		return fmt.Errorf("%w: or use --workspace-mode copy or overlay", err)
	}
	if err := errors.Join(b.refuseSubmodules(), b.refuseInnerRepository()); err != nil {
		return err
	}
	users, err := mapping(b.options.Source, owner, b.options.Runsc != "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, users.Close()) }()
	if err := os.Mkdir(b.workspaceTree(), 0o700); err != nil {
		return err
	}
	if err := mountMapped(top, b.workspaceTree(), users, 0); err != nil {
		return err
	}
	for _, name := range guarded {
		if err := b.guard(name, users); err != nil {
			return err
		}
	}
	return nil
}

// refuseRoots: no_new_privs does not keep an agent from making a file that gives
// its owner or group away.
func refuseRoots(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Uid == 0 || st.Gid == 0 {
		return fmt.Errorf("it belongs to root or root's group, in whose name no agent writes to the host: give it to a user and a group of his: %w", errdefs.ErrPermissionDenied)
	}
	return nil
}

// refuseSubmodules: git at the top runs git in each submodule, and takes there
// what it finds, also where nothing is yet.
func (b *Bottle) refuseSubmodules() error {
	for _, name := range []string{".gitmodules", ".git/modules"} {
		fd, err := b.openGuarded(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err == nil {
			err = unix.Close(fd)
		}
		return errors.Join(fmt.Errorf("%s is there: in place of a submodule the agent could put a repository that makes git run its programs on the host: use --workspace-mode copy or overlay: %w", name, errdefs.ErrFailedPrecondition), err)
	}
	return nil
}

// refuseInnerRepository: a file .git leads to a repository, and where that is in
// the workspace the agent can write to it.
func (b *Bottle) refuseInnerRepository() error {
	s := b.options.Source
	at := filepath.Join(s.Path, ".git")
	var st unix.Stat_t
	if err := s.User.Do(func() error { return unix.Lstat(at, &st) }); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil //nolint:nilerr // what cannot be seen, or is a link, the guard refuses
	}
	text, err := s.User.ReadFile(at, unix.PathMax)
	if err != nil {
		return err
	}
	dir := strings.TrimSpace(strings.TrimPrefix(string(text), "gitdir:"))
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(s.Path, dir)
	}
	var top, repository string
	err = s.User.Do(func() (err error) {
		if top, err = filepath.EvalSymlinks(s.Path); err == nil {
			repository, err = filepath.EvalSymlinks(dir)
		}
		return err
	})
	if err != nil || within(s.Path, dir) || within(top, repository) {
		return fmt.Errorf("the file .git leads to %q, which is in the workspace or cannot be seen, so that the agent could make git run its programs on the host: use --workspace-mode copy or overlay: %w", dir, errors.Join(errdefs.ErrFailedPrecondition, err))
	}
	return nil
}

func within(top, name string) bool {
	rel, err := filepath.Rel(top, name)
	return err != nil || filepath.IsLocal(rel)
}

// guard puts a mount of what is at a path on top of it, if anything is there.
func (b *Bottle) guard(name string, users *os.File) error {
	fd, err := b.openGuarded(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s cannot be made read-only, as it is or goes through a link: use --workspace-mode copy or overlay: %w: %w", name, err, errdefs.ErrFailedPrecondition)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	at := filepath.Join(b.dir(), "guard-"+strconv.Itoa(len(b.guards)))
	if info.IsDir() {
		err = os.Mkdir(at, 0o700)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return err
	}
	if err := mountMapped(f, at, users, unix.MOUNT_ATTR_RDONLY); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b.guards = append(b.guards, bottlespec.Bind{Source: at, Target: path.Join(b.Workspace.Target, name)})
	return nil
}

// openGuarded refuses a link: to what it leads could be changed by its own name.
func (b *Bottle) openGuarded(name string) (fd int, err error) {
	source := b.options.Source
	return fd, source.User.Do(func() (err error) {
		fd, err = beneath.Open(int(source.Top.Fd()), name, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return errors.Join(unix.ELOOP, err, unix.Close(fd))
		}
		return nil
	})
}
