package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/skill"
)

// skillPlace is a directory that may be a skill: below is confined to top, and
// top is opened as its owner.
type skillPlace struct {
	owner      invoker.User
	top, below string
}

// readSkills reads what an agent's manifest names.
func readSkills(who invoker.User, a *manifest.Agent) ([]skill.Skill, error) {
	var skills []skill.Skill
	for _, name := range a.Skills {
		if err := skill.CheckName(name); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Source, err)
		}
		s, err := findSkill(skillPlaces(who, a, name), name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Source, err)
		}
		skills = append(skills, s)
	}
	return skills, nil
}

// skillPlaces are beside the agent, and for a user's own agents where the
// providers' programs have them, too. A project's are in the project, whatever
// links it holds.
func skillPlaces(who invoker.User, a *manifest.Agent, name string) []skillPlace {
	base := filepath.Dir(filepath.Dir(a.Source))
	if a.Project {
		project := filepath.Dir(base)
		return []skillPlace{{who, project, filepath.Join(".carboy/skills", name)}, {who, project, filepath.Join(".claude/skills", name)}}
	}
	if base == manifest.OperatorDir {
		return []skillPlace{{owner: invoker.User{UID: os.Geteuid()}, top: filepath.Join(base, "skills", name)}}
	}
	var places []skillPlace
	for _, dir := range []string{filepath.Join(base, "skills"), filepath.Join(who.Home, ".claude/skills"), filepath.Join(who.Home, ".agents/skills")} {
		places = append(places, skillPlace{owner: who, top: filepath.Join(dir, name)})
	}
	return places
}

func findSkill(places []skillPlace, name string) (skill.Skill, error) {
	var looked []string
	for _, p := range places {
		s, err := p.read(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
		looked = append(looked, filepath.Join(p.top, p.below))
	}
	return skill.Skill{}, fmt.Errorf("no skill %s: looked for %s: %w", name, strings.Join(looked, " and "), errdefs.ErrInvalidArgument)
}

func (p skillPlace) read(name string) (s skill.Skill, err error) {
	top, err := p.owner.OpenDir(p.top)
	if err != nil {
		return s, err
	}
	defer top.Close()
	err = p.owner.Do(func() error {
		root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", top.Fd()))
		if err != nil {
			return err
		}
		defer root.Close()
		dir, err := root.OpenRoot(filepath.Join(".", p.below))
		if err != nil {
			return err
		}
		defer dir.Close()
		s, err = skill.Read(dir, name)
		return err
	})
	return s, err
}
