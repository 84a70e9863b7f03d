package cmd

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

func newValidate(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "validate [FILE...]",
		Short: "Check manifests: the named files, or all that there are",
		Long: `Check manifests: the named files, or all in ~/.config/carboy, /etc/carboy, those
that come with carboy and .carboy of the project. What they name outside, skills,
keys and directories, is looked for at a start only. Prints those that are valid, tells all that is wrong with
the others, and ends with status 2 if there are such.`,
		RunE: func(c *cobra.Command, args []string) error {
			return withDirs(c, s, func(who invoker.User, dirs []manifest.Dir) error {
				if len(args) > 0 {
					return validateAll(c, args, func(path string) error { return validateFile(who, dirs, path) })
				}
				var errs []error
				for i, d := range dirs {
					files, err := d.Files()
					errs = append(errs, err, validateAll(c, files, func(path string) error { return validateFrom(d, from(dirs, i), path) }))
				}
				return errors.Join(errs...)
			})
		},
	}
	workspaceFlag(c)
	return c
}

func validateAll(c *cobra.Command, paths []string, check func(path string) error) error {
	var errs []error
	for _, path := range paths {
		if err := check(path); err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = fmt.Fprintf(c.OutOrStdout(), "%s: valid\n", quotePath(path))
	}
	return errors.Join(errs...)
}

// from are the directories that what is in the i-th may name things of.
func from(dirs []manifest.Dir, i int) []manifest.Dir {
	if dirs[i].Project {
		return append([]manifest.Dir{dirs[i]}, dirs[:i]...)
	}
	return dirs[i:]
}

func validateFrom(d manifest.Dir, dirs []manifest.Dir, path string) error {
	const limit = 1 << 20
	text, err := d.ReadFile(path, limit)
	if err != nil {
		return err
	}
	return validate(dirs, path, text)
}

// validateFile reads a file as who asks, if it is no manifest that a start would
// read: that is read as there, and beside the operator's are keys. One that is
// in none of the directories is as if it were in a directory before them.
func validateFile(who invoker.User, dirs []manifest.Dir, path string) error {
	path, err := absolute(path)
	if err != nil {
		return err
	}
	parent := filepath.Dir(path)
	top, sub := filepath.Dir(parent), filepath.Base(parent)
	if i := slices.IndexFunc(dirs, func(d manifest.Dir) bool { return d.Path == top }); i >= 0 && (sub == "agents" || sub == "bottles") {
		return asRequest(validateFrom(dirs[i], from(dirs, i), path))
	}
	own := manifest.Dir{Path: top, ReadFile: who.ReadFile, List: listDir(who)}
	if filepath.Base(top) == projectDir {
		own = projectFiles{who, filepath.Dir(top)}.dir()
	}
	return asRequest(validateFrom(own, append([]manifest.Dir{own}, dirs...), path))
}

// validate checks a manifest as a start would, but for what it names outside:
// skills, keys, directories.
func validate(dirs []manifest.Dir, path string, text []byte) error {
	checked, err := manifest.Check(dirs, path, text)
	if err != nil {
		return err
	}
	var agent manifest.Agent
	if checked.Agent != nil {
		agent = *checked.Agent
	}
	_, err = examine(agent, checked.Bottle)
	var named *manifest.Fault
	if err == nil || errors.As(err, &named) {
		return err
	}
	return fmt.Errorf("%s: %w", quotePath(path), err)
}

func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return abs, nil
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [agent|bottle]",
		Short: "Print the JSON Schema of bottles, or of agents' front matter, for editors",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return noArgs(c, args[1:])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			kind := append(args, "bottle")[0]
			s, ok := manifest.Schema(kind)
			if !ok {
				return fmt.Errorf("schema of %q: choose agent or bottle: %w", kind, errdefs.ErrInvalidArgument)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s\n", s)
			return err
		},
	}
}
