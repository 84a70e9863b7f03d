package runtime

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"carboy/runtime/manifest"
)

// Modes of a workspace.
const (
	ModeCopy    = "copy"    // a copy, of which the changes are kept
	ModeOverlay = "overlay" // the live directory below, the changes above
	ModeBind    = "bind"    // the live directory
)

// WorkspacePlan is the project that an agent works on.
type WorkspacePlan struct {
	Directory string `json:"directory"` // of the host
	Mode      string `json:"mode"`
	Target    string `json:"target"` // in the container
}

// DefaultTarget is where a workspace appears.
const DefaultTarget = "/workspace"

func (w *WorkspacePlan) target() string {
	if w == nil {
		return ""
	}
	return w.Target
}

// longestDirectory fits in a label of containerd with what stands beside it.
const longestDirectory = 2048

func (p *Plan) setWorkspace(asked WorkspacePlan, m manifest.Workspace) error {
	w := WorkspacePlan{Directory: asked.Directory, Mode: cmp.Or(asked.Mode, m.Mode, ModeCopy), Target: cmp.Or(asked.Target, m.Target, DefaultTarget)}
	if !slices.Contains([]string{ModeCopy, ModeOverlay, ModeBind}, w.Mode) {
		return invalid("workspace mode %q: choose copy, overlay or bind", w.Mode)
	}
	if err := manifest.CheckTarget(w.Target); err != nil {
		return invalid("workspace target %w", err)
	}
	if w.Directory == "" {
		if asked != (WorkspacePlan{}) {
			return invalid("--workspace-mode and --workspace-target need --cwd or --workspace DIR")
		}
		return nil
	}
	if !filepath.IsAbs(w.Directory) || len(w.Directory) > longestDirectory || strings.ContainsRune(w.Directory, 0) {
		return invalid("workspace %q: give the path of a directory, of at most %d bytes", w.Directory, longestDirectory)
	}
	p.Workspace = &w
	return nil
}
