package cmd

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/egress"
	"carboy/runtime/egress/saved"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// steerAndSave changes nothing at all where it could not save the change.
func steerAndSave(c *cobra.Command, s *settings, name string, r egress.Request) error {
	v, err := steer(c, s, name, egress.Request{Do: egress.Show})
	if err != nil {
		return err
	}
	save, err := findSaving(s, v)
	if err == nil {
		err = save.prepare(r, v)
	}
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	if len(save.live.Hosts) > 0 {
		if _, err := steer(c, s, name, save.live); err != nil {
			return err
		}
	}
	if err := save.run(c.OutOrStdout()); err != nil {
		return fmt.Errorf("the change is in force in bottle %s, and not saved: %w", name, err)
	}
	return nil
}

// saving is a bottle's manifest that gets a change of the bottle's policy.
type saving struct {
	ownFile
	s    *settings
	dirs []manifest.Dir // the first is the file's
	text []byte         // what is to be written
	live egress.Request // what is to be put in force
}

// findSaving reads the manifest that a bottle began with. It is written only in a
// directory that is the invoker's own or the operator's: in another's it may be
// changed for a link any time.
func findSaving(s *settings, v egress.View) (*saving, error) {
	if v.Source == "" {
		return nil, fmt.Errorf("the bottle came from flags alone and has no manifest to save to: `carboy init` writes one: %w", errdefs.ErrFailedPrecondition)
	}
	who, err := invoker.Current()
	if err != nil {
		return nil, err
	}
	dirs := s.manifestDirs(who, "")
	top := filepath.Dir(filepath.Dir(v.Source))
	i := slices.IndexFunc(dirs, func(d manifest.Dir) bool { return !d.Project && d.Path == top })
	if i < 0 {
		return nil, fmt.Errorf("%s is in no directory of yours for manifests: let its owner save the change: %w", quotePath(v.Source), errdefs.ErrFailedPrecondition)
	}
	if shipped, err := installedDir("share"); err == nil && top == shipped {
		return nil, fmt.Errorf("%s came with carboy: copy it to %s, for the bottles to come, and change it there: %w",
			quotePath(v.Source), filepath.Join(manifest.OperatorDir, "bottles"), errdefs.ErrFailedPrecondition)
	}
	text, err := dirs[i].ReadFile(v.Source, 1<<20)
	if err != nil {
		return nil, err
	}
	return &saving{ownFile: ownFile{who, v.Source, text}, s: s, dirs: from(dirs, i)}, nil
}

// prepare writes nothing.
func (e *saving) prepare(r egress.Request, v egress.View) error {
	m, err := e.read(e.old)
	if err != nil {
		return err
	}
	e.live = m.Live(r, v)
	if e.text, err = m.After(r, v); err != nil {
		return err
	}
	if m, err = e.read(e.text); err != nil {
		return err
	}
	if err := m.CheckDenied(r); err != nil || e.same() {
		return err
	}
	return e.writable()
}

func (e *saving) read(text []byte) (saved.Manifest, error) {
	checked, err := validate(e.s, e.dirs, e.path, text)
	if err != nil {
		return saved.Manifest{}, err
	}
	return saved.Manifest{Path: e.path, Text: text, Bottle: checked.Bottle, Allow: checked.plan.Allow}, nil
}

func (e *saving) same() bool { return bytes.Equal(e.text, e.old) }

func (e *saving) run(w io.Writer) error {
	if e.same() {
		_, err := fmt.Fprintf(w, "%s says so already\n", quotePath(e.path))
		return err
	}
	if err := e.replace(e.text); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "saved %s\n", quotePath(e.path))
	return err
}
