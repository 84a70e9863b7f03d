package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/skill"
)

// skillPlace is a directory that may be a skill, opened as its owner. In a
// project no link leads to it.
type skillPlace struct {
	owner         invoker.User
	project, path string
}

// readSkills reads what an agent's manifest names, and tells all that is wrong
// with it.
func readSkills(who invoker.User, a *manifest.Agent) ([]skill.Skill, error) {
	if err := skill.CheckNames(a.Skills); err != nil {
		return nil, a.At("skills").Fault(err)
	}
	reader := skill.Reader{Links: !a.Project}
	var skills []skill.Skill
	var errs []error
	for _, name := range a.Skills {
		s, err := findSkill(&reader, skillPlaces(who, a, name), name)
		errs = append(errs, a.At("skills", name).Fault(err))
		skills = append(skills, s)
	}
	return skills, errors.Join(errs...)
}

// skillPlaces are beside the agent, and for a user's own agents where the
// providers' programs have them, too. A project's are in the project.
func skillPlaces(who invoker.User, a *manifest.Agent, name string) []skillPlace {
	base := filepath.Dir(filepath.Dir(a.Source))
	if a.Project {
		project := filepath.Dir(base)
		return []skillPlace{{who, project, filepath.Join(base, "skills", name)}, {who, project, filepath.Join(project, ".claude/skills", name)}}
	}
	if base == manifest.OperatorDir {
		return []skillPlace{{owner: invoker.User{UID: os.Geteuid()}, path: filepath.Join(base, "skills", name)}}
	}
	var places []skillPlace
	for _, dir := range []string{filepath.Join(base, "skills"), filepath.Join(who.Home, ".claude/skills"), filepath.Join(who.Home, ".agents/skills")} {
		places = append(places, skillPlace{owner: who, path: filepath.Join(dir, name)})
	}
	return places
}

func findSkill(r *skill.Reader, places []skillPlace, name string) (skill.Skill, error) {
	var looked []string
	for _, p := range places {
		s, err := p.read(r, name)
		if !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
		looked = append(looked, quotePath(p.path))
	}
	return skill.Skill{}, fmt.Errorf("no skill %s: looked for %s: %w", name, strings.Join(looked, " and "), errdefs.ErrInvalidArgument)
}

func (p skillPlace) read(r *skill.Reader, name string) (s skill.Skill, err error) {
	top, err := p.open()
	if err != nil {
		return s, err
	}
	defer top.Close()
	err = p.owner.Do(func() error {
		dir, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", top.Fd()))
		if err != nil {
			return err
		}
		defer dir.Close()
		s, err = r.Read(dir, name)
		return err
	})
	return s, err
}

func (p skillPlace) open() (*os.File, error) {
	if p.project == "" {
		return p.owner.OpenDir(p.path)
	}
	return projectFiles{p.owner, p.project}.open(p.path, unix.O_PATH|unix.O_DIRECTORY)
}
