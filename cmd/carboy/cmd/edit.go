package cmd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

func newEdit(s *settings) *cobra.Command {
	var bottle string
	c := &cobra.Command{
		Use:   "edit AGENT | --bottle NAME",
		Short: "Edit a manifest; it is saved once it is valid",
		Long: `Edit the manifest of an agent, or of a bottle, with $VISUAL, $EDITOR, editor or vi.
All happens with the rights of the user who calls, through sudo too: the editor
runs as him on a copy of his own, and what he may not write is not edited.`,
		Args: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == (bottle != "") || len(args) > 1 {
				return fmt.Errorf("give an agent, or --bottle NAME: %s: %w", c.UseLine(), errdefs.ErrInvalidArgument)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return withDirs(c, s, func(who invoker.User, dirs []manifest.Dir) error {
				kind, name, dir, ext := "bottle", bottle, "bottles", ".yaml"
				if len(args) > 0 {
					kind, name, dir, ext = "agent", args[0], "agents", ".md"
				}
				if !manifest.ValidName(name) { // it could lead elsewhere
					return fmt.Errorf("%s %q: no valid name: %w", kind, name, errdefs.ErrInvalidArgument)
				}
				e, err := findEdit(s, who, dirs, kind+" "+name, filepath.Join(dir, name+ext))
				if err != nil {
					return err
				}
				return e.run(c)
			})
		},
	}
	workspaceFlag(c)
	c.Flags().StringVar(&bottle, "bottle", "", "`NAME` of a bottle to edit")
	return c
}

// edit is a manifest that is being edited.
type edit struct {
	ownFile
	s    *settings
	dirs []manifest.Dir // the first is the file's
	copy string         // of the user's
}

// findEdit reads the file that counts, as it is for a start.
func findEdit(s *settings, who invoker.User, dirs []manifest.Dir, kind, file string) (*edit, error) {
	for i, d := range dirs {
		path := filepath.Join(d.Path, file)
		if d.Project && filepath.Ext(file) == ".yaml" {
			continue
		}
		text, err := d.ReadFile(path, 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = othersToWrite(d, path)
		}
		if err != nil {
			return nil, asRequest(err)
		}
		return &edit{ownFile: ownFile{who, path, text}, s: s, dirs: from(dirs, i)}, nil
	}
	return nil, fmt.Errorf("there is no %s; `carboy init` writes a new one: %w", kind, errdefs.ErrInvalidArgument)
}

// othersToWrite is an error where what is edited would not last, or is nobody's
// who is trusted.
func othersToWrite(d manifest.Dir, path string) error {
	if d.Project {
		return fmt.Errorf("%s is the project's: edit it there, and check it with `carboy validate`", quotePath(path))
	}
	if shipped, err := installedDir("share"); err == nil && d.Path == shipped {
		return fmt.Errorf("%s came with carboy: `carboy init` writes one of your own, which goes before it", quotePath(path))
	}
	return nil
}

// run changes nothing until the end.
func (e *edit) run(c *cobra.Command) error {
	if err := e.writable(); err != nil {
		return err
	}
	dir, err := e.who.TempDir("carboy-edit-")
	if err != nil {
		return fmt.Errorf("make a copy to edit: %w", err)
	}
	e.copy = filepath.Join(dir, filepath.Base(e.path))
	if err := e.who.WriteNew(e.copy, e.old); err != nil {
		return err
	}
	saved, err := e.untilValid(c.Context())
	if err != nil && e.untouched() {
		return errors.Join(err, e.who.RemoveAll(dir))
	}
	if err != nil {
		return fmt.Errorf("%w\nnothing was saved; the edited copy is %s", err, e.copy)
	}
	if saved {
		_, err = fmt.Fprintf(c.OutOrStdout(), "saved %s\n", quotePath(e.path))
	} else {
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s is as before\n", quotePath(e.path))
	}
	return errors.Join(err, e.who.RemoveAll(dir))
}

// untouched says that an editor left the copy as it was.
func (e *edit) untouched() bool {
	text, err := e.who.ReadFile(e.copy, 1<<20)
	return err == nil && bytes.Equal(text, e.old)
}

func (e *edit) untilValid(ctx context.Context) (saved bool, err error) {
	for {
		if err := e.edit(ctx); err != nil {
			return false, err
		}
		text, err := e.who.ReadFile(e.copy, 1<<20)
		if err != nil {
			return false, err
		}
		if bytes.Equal(text, e.old) {
			return false, nil
		}
		v, err := validate(e.s, e.dirs, e.path, text)
		if err == nil {
			if err = e.replace(text); err == nil {
				v.warn(e.who)
			}
			return true, err
		}
		tty, noTTY := openTerminal()
		if noTTY != nil {
			return false, err
		}
		_ = tty.Close()
		fmt.Fprintf(os.Stderr, "carboy: %s\n", words(err))
		if ask(ctx, "edit again?", "") != nil {
			return false, fmt.Errorf("%s is not valid: %w", filepath.Base(e.path), errdefs.ErrInvalidArgument)
		}
	}
}

// edit runs the editor as git does: what $EDITOR has is a shell's words. Its
// interrupts are the editor's own affair.
func (e *edit) edit(ctx context.Context) error {
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), `$(command -v editor || echo vi)`)
	c := e.who.Interactive(context.WithoutCancel(ctx), "sh", "-c", editor+` "$1"`, "editor", e.copy)
	if err := c.Run(); err != nil {
		return fmt.Errorf("editor: %w", err)
	}
	return ctx.Err()
}
