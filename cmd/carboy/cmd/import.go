package cmd

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/proxy/policy"
)

func newImport() *cobra.Command {
	var dest, image string
	var dry bool
	c := &cobra.Command{
		Use:   "import claude-bottle.json",
		Short: "Write the manifests that a claude-bottle.json is equivalent to",
		Long: `Write agents/*.md and bottles/*.yaml that grant what a claude-bottle.json of
bot-bottle does, and tell what has no equivalent. Nothing is overwritten.`,
		Args: exactlyOne("a file"),
		RunE: func(c *cobra.Command, args []string) error {
			return importFile(c, args[0], dest, image, dry)
		},
	}
	c.Flags().StringVar(&dest, "dest", "", "`DIR` to write to (default ~/.config/carboy)")
	c.Flags().StringVar(&image, "image", "", "image of the agents (default one with Claude Code that is built)")
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would be written")
	return c
}

func importFile(c *cobra.Command, file, dest, image string, dry bool) error {
	who, err := invoker.Current()
	if err != nil {
		return err
	}
	dir, err := draftsDir(who, dest)
	if err != nil {
		return err
	}
	text, err := who.ReadFile(file, 1<<20)
	if err != nil {
		return asRequest(err)
	}
	drafts, notes, err := convert(text, dir, image)
	if err != nil {
		return fmt.Errorf("%s: %w", quotePath(filepath.Base(file)), err)
	}
	if dry {
		err = printDrafts(c.OutOrStdout(), drafts)
	} else if err = writeDrafts(c.OutOrStdout(), who, drafts); err == nil {
		notes = append(notes, missingOf(who, drafts)...)
	}
	for _, n := range notes {
		_, _ = fmt.Fprintf(c.ErrOrStderr(), "note: %s\n", policy.Visible(n))
	}
	return err
}

// missingOf is what the manifests name that is not there: keys and skills.
func missingOf(who invoker.User, drafts []draft) (notes []string) {
	var paths []string
	for _, d := range drafts {
		if filepath.Ext(d.path) != "" {
			paths = append(paths, d.path)
		}
	}
	v := validation{who: who, dirs: manifestDirs(who, ""), out: io.Discard, told: map[string]bool{}}
	if err := v.all(paths, v.file); err != nil {
		for line := range strings.SplitSeq(words(err), "\n") {
			notes = append(notes, "no start before this is mended: "+line)
		}
	}
	return notes
}

// convert makes drafts of a claude-bottle.json.
func convert(text []byte, dir manifest.Dir, image string) ([]draft, []string, error) {
	old, err := readClaudeBottle(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	x := &conversion{dir: dir.Path, image: image, names: map[string]map[string]string{}}
	if err := x.all(old); err != nil {
		return nil, nil, err
	}
	return x.drafts, x.notes, checkDrafts(dir, x.drafts)
}
