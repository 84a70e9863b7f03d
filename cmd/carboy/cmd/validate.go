package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

func newValidate(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "validate [FILE...]",
		Short: "Check manifests: the named files, or all that there are",
		Long: `Check manifests: the named files, or all in ~/.config/carboy, /etc/carboy, those
that come with carboy and .carboy of the project. Prints for each whether a start
would take it, and tells all that is wrong, with file and line. Skills, mounts,
files of ssh keys and the directories of builds are looked for with the rights of
the user who calls. Values of secrets, variables of the caller, keys in an
ssh-agent and images are not: they are another's, or of another time. Ends with
status 2 if a manifest is not valid.`,
		RunE: func(c *cobra.Command, args []string) error {
			return withDirs(c, s, func(who invoker.User, dirs []manifest.Dir) error {
				v := validation{s: s, who: who, dirs: dirs, out: c.OutOrStdout(), told: map[string]bool{}}
				if len(args) > 0 {
					return v.all(args, v.file)
				}
				var errs []error
				for i, d := range dirs {
					files, err := d.Files()
					errs = append(errs, err, v.all(files, func(path string) (valid, error) { return v.from(d, from(dirs, i), path) }))
				}
				return errors.Join(errs...)
			})
		},
	}
	workspaceFlag(c)
	return c
}

// validation is of many manifests.
type validation struct {
	s    *settings
	who  invoker.User
	dirs []manifest.Dir
	out  io.Writer
	told map[string]bool // errors: those of a bottle are its agents', too
}

// all prints what becomes of each.
func (v validation) all(paths []string, check func(path string) (valid, error)) error {
	var errs []error
	for _, path := range paths {
		found, err := check(path)
		if err == nil {
			err = found.outside(v.who)
		}
		if err == nil {
			_, _ = fmt.Fprintf(v.out, "%s: valid%s\n", quotePath(path), found)
			continue
		}
		_, _ = fmt.Fprintf(v.out, "%s: not valid\n", quotePath(path))
		if text := err.Error(); !v.told[text] {
			v.told[text] = true
			errs = append(errs, err)
		}
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

func (v validation) from(d manifest.Dir, dirs []manifest.Dir, path string) (valid, error) {
	const limit = 1 << 20
	text, err := d.ReadFile(path, limit)
	if err != nil {
		return valid{}, asRequest(err)
	}
	return validate(v.s, dirs, path, text)
}

// file reads a file as who asks, if it is no manifest that a start would
// read: that is read as there, and beside the operator's are keys. One that is
// in none of the directories is as if it were in a directory before them.
func (v validation) file(path string) (valid, error) {
	path, err := absolute(path)
	if err != nil {
		return valid{}, err
	}
	parent := filepath.Dir(path)
	top, sub := filepath.Dir(parent), filepath.Base(parent)
	if i := slices.IndexFunc(v.dirs, func(d manifest.Dir) bool { return d.Path == top }); i >= 0 && (sub == "agents" || sub == "bottles") {
		return v.from(v.dirs[i], from(v.dirs, i), path)
	}
	own := manifest.Dir{Path: top, ReadFile: v.who.ReadFile, List: listDir(v.who)}
	if filepath.Base(top) == projectDir {
		own = projectFiles{v.who, filepath.Dir(top)}.dir()
	}
	return v.from(own, append([]manifest.Dir{own}, v.dirs...), path)
}

// valid is a manifest in which nothing is wrong, and the plan that it makes.
type valid struct {
	manifest.Checked
	plan *runtime.Plan
}

// validate checks a manifest as a start would, but for what it names outside.
func validate(s *settings, dirs []manifest.Dir, path string, text []byte) (valid, error) {
	checked, err := manifest.Check(dirs, path, text)
	if err != nil {
		return valid{}, err
	}
	var agent manifest.Agent
	if checked.Agent != nil {
		agent = *checked.Agent
	}
	plan, err := examine(s, agent, checked.Bottle)
	var named *manifest.Fault
	if err == nil || errors.As(err, &named) {
		return valid{checked, plan}, err
	}
	return valid{}, fmt.Errorf("%s: %w", quotePath(path), err)
}

// outside looks for what a manifest names, as a start does before it asks.
func (v valid) outside(who invoker.User) error {
	var errs []error
	if v.Agent != nil {
		_, err := readSkills(who, v.Agent)
		errs = append(errs, err)
	}
	var open sources
	defer open.shut()
	return asRequest(errors.Join(append(errs, open.open(v.plan, who, who, true, &runtime.UpOptions{}))...))
}

// warn tells what a start would miss.
func (v valid) warn(who invoker.User) {
	if err := v.outside(who); err != nil {
		fmt.Fprintf(os.Stderr, "WARNING: it is valid, but does not start yet: %s\n", words(err))
	}
}

// String is what of it was looked at.
func (v valid) String() string {
	var seen []string
	if v.Agent != nil {
		seen = append(seen, "bottle "+v.Bottle.Name)
		if n := len(v.Agent.Skills); n > 0 {
			seen = append(seen, "skills "+strings.Join(v.Agent.Skills, " "))
		}
	}
	for _, m := range v.plan.Mounts {
		seen = append(seen, "mount "+quote(m.Source))
	}
	for _, h := range v.plan.SSH {
		if _, lent := manifest.AgentKey(h.Key); !lent {
			seen = append(seen, "key "+quote(h.Key))
		}
	}
	if b := v.plan.Build; b != nil {
		seen = append(seen, "build "+quote(b.Context))
	}
	if len(seen) == 0 {
		return ""
	}
	return " (" + strings.Join(seen, ", ") + ")"
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
