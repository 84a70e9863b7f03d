package manifest

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// Checked is a manifest, and the bottle with all that it extends. Agent is nil
// of a bottle's own manifest.
type Checked struct {
	Agent  *Agent
	Bottle Bottle
}

// Check reads the text of a manifest, an agent's if its name ends in .md. What
// it names is looked for in dirs, of which the first is where it is.
func Check(dirs []Dir, path string, text []byte) (Checked, error) {
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	if n := strings.TrimSuffix(base, ext); !name.MatchString(n) {
		return Checked{}, fmt.Errorf("%s: %q is no name of an agent or a bottle: %s: %w", shown(path), cut(n), forms["name"].hint, errdefs.ErrInvalidArgument)
	}
	switch ext {
	case ".md":
		return checkAgent(dirs, path, text)
	case ".yaml":
		b, err := ParseBottle(path, text)
		if err == nil {
			b, err = (&family{dirs: dirs}).extend(b, 0, []Bottle{b})
		}
		return Checked{Bottle: b}, err
	}
	return Checked{}, fmt.Errorf("%s: an agent's file ends in .md, a bottle's in .yaml: %w", shown(path), errdefs.ErrInvalidArgument)
}

func checkAgent(dirs []Dir, path string, text []byte) (Checked, error) {
	a, err := ParseAgent(path, text)
	a.Name, a.Project = strings.TrimSuffix(filepath.Base(path), ".md"), len(dirs) > 0 && dirs[0].Project
	if err == nil && a.Project {
		err = a.forwardsNothing()
	}
	if err != nil {
		return Checked{}, err
	}
	b, err := bottleOf(dirs, 0, a)
	return Checked{&a, b}, err
}

// Files are the paths of all manifests in a directory.
func (d Dir) Files() (paths []string, err error) {
	agents, err := d.names("agents", ".md")
	for _, n := range agents {
		paths = append(paths, filepath.Join(d.Path, "agents", n+".md"))
	}
	if d.Project {
		return paths, err
	}
	bottles, bottlesErr := d.names("bottles", ".yaml")
	for _, n := range bottles {
		paths = append(paths, filepath.Join(d.Path, "bottles", n+".yaml"))
	}
	return paths, errors.Join(err, bottlesErr)
}
