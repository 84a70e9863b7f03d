package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/changes"
	"carboy/runtime/invoker"
	"carboy/runtime/workspace"
)

func newCp(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "cp NAME:PATH DEST | SOURCE NAME:PATH",
		Short: "Copy between the workspace of a bottle and this host",
		Long: `Copy a file or a directory out of the workspace of a bottle, live or ended, or
into that of a live one. PATH is in the workspace, or absolute as the agent sees
it. Paths of this host are opened as the user who calls; links are copied and
not followed. Use "carboy exec NAME cat PATH" for what is not in the workspace.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 2 {
				from, to := isRemote(args[0]), isRemote(args[1])
				if from != to {
					return nil
				}
			}
			return fmt.Errorf("give one path of this host, and one as NAME:PATH: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return awaited(c, s, "copying "+args[0]+" to "+args[1], func(ctx context.Context, h *runtime.Host) error {
				who, err := invoker.Current()
				if err != nil {
					return err
				}
				if isRemote(args[0]) {
					return copyOut(ctx, h, who, args[0], args[1])
				}
				return copyIn(ctx, h, who, args[0], args[1])
			})
		},
	}
}

// isRemote tells NAME:PATH from a path, as docker cp does: a path with a colon
// is written with a slash before it.
func isRemote(arg string) bool {
	name, _, found := strings.Cut(arg, ":")
	return found && name != "" && !strings.ContainsAny(name, "/.")
}

// remote finds the workspace of NAME:PATH. The caller closes it.
func remote(ctx context.Context, h *runtime.Host, arg string) (r runtime.Result, tree *os.File, name string, err error) {
	bottle, name, _ := strings.Cut(arg, ":")
	if r, err = h.Result(ctx, bottle); err != nil {
		return r, nil, "", err
	}
	if path.IsAbs(name) {
		inside, found := strings.CutPrefix(path.Clean(name)+"/", r.Target+"/")
		if !found {
			return r, nil, "", fmt.Errorf("%s is not in the workspace, which is %s: use `carboy exec %s cat PATH`: %w", quotePath(name), quotePath(r.Target), r.Name, errdefs.ErrInvalidArgument)
		}
		name = inside
	}
	if name = strings.Trim(path.Clean("/"+name), "/"); strings.ContainsRune(name, 0) {
		return r, nil, "", fmt.Errorf("path with a NUL byte: %w", errdefs.ErrInvalidArgument)
	}
	tree, err = h.Now(ctx, r)
	return r, tree, name, err
}

func copyOut(ctx context.Context, h *runtime.Host, who invoker.User, from, to string) error {
	r, tree, name, err := remote(ctx, h, from)
	if err != nil {
		return err
	}
	defer tree.Close()
	last := path.Base(name)
	if name == "" {
		last = path.Base(r.Target)
	}
	top, err := who.OpenDir(to)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		last = filepath.Base(to)
		top, err = who.OpenDir(filepath.Dir(to))
	}
	if err != nil {
		return err
	}
	defer top.Close()
	return changes.Export(ctx, tree, name, changes.Target{Top: top, User: who}, last)
}

func copyIn(ctx context.Context, h *runtime.Host, who invoker.User, from, to string) error {
	r, tree, name, err := remote(ctx, h, to)
	if err != nil {
		return err
	}
	defer tree.Close()
	if !h.Lives(r.Instance) {
		return fmt.Errorf("bottle %s has ended: what its agent left cannot be changed: %w", r.Name, errdefs.ErrFailedPrecondition)
	}
	if changes.IsDirectory(tree, name) {
		whole, err := filepath.Abs(from)
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(path.Join(name, filepath.Base(whole)), "/")
	}
	if dir, err := who.OpenDir(from); err == nil {
		defer dir.Close()
		return copyDirectoryIn(ctx, workspace.Source{Path: from, Top: dir, User: who}, tree, name)
	}
	f, err := who.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return changes.Import(ctx, f, tree, name)
}

func copyDirectoryIn(ctx context.Context, from workspace.Source, tree *os.File, name string) error {
	info, err := tree.Stat()
	if err != nil {
		return err
	}
	now, err := from.Scan(ctx)
	if err != nil {
		return err
	}
	dir, err := changes.ImportDirectory(tree, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	st := info.Sys().(*syscall.Stat_t)
	_, err = from.Update(ctx, dir, workspace.Owner{UID: int(st.Uid), GID: int(st.Gid)}, workspace.Index{}, now)
	return err
}
