package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Bounds of what is looked at of a directory: a project's may be made to keep
// who lists it waiting.
const (
	mostListed     = 1000
	mostOfProjects = 100
)

// Listed is an agent that there is. Err says why it cannot be used.
type Listed struct {
	Agent    Agent
	Bottle   Bottle
	Shadowed bool // an earlier directory has one of that name
	Err      error
}

// List is every agent of the directories, by name, what wins first.
func List(dirs []Dir) ([]Listed, error) {
	var all []Listed
	var errs []error
	taken := map[string]bool{}
	for i, d := range dirs {
		names, err := d.names("agents", ".md")
		errs = append(errs, err)
		for _, n := range names {
			l := listed(dirs, i, n)
			l.Shadowed = taken[n]
			all = append(all, l)
		}
		for _, n := range names {
			taken[n] = true
		}
	}
	slices.SortStableFunc(all, func(a, b Listed) int { return strings.Compare(a.Agent.Name, b.Agent.Name) })
	return all, errors.Join(errs...)
}

func listed(dirs []Dir, i int, agent string) (l Listed) {
	l.Agent = Agent{Name: agent, Project: dirs[i].Project, Source: filepath.Join(dirs[i].Path, "agents", agent+".md")}
	if !name.MatchString(agent) {
		l.Err = fmt.Errorf("%s: %q is no name of an agent: %s: %w", shown(l.Agent.Source), cut(agent), forms["name"].hint, errdefs.ErrInvalidArgument)
		return l
	}
	a, err := dirs[i].agent(agent)
	if err != nil {
		l.Err = err
		return l
	}
	l.Agent = a
	l.Bottle, l.Err = bottleOf(dirs, i, a)
	return l
}

// AgentNames are those of the agents there are, without a look at them. What
// cannot be listed is left out.
func AgentNames(dirs []Dir) []string { return allNames(dirs, "agents", ".md") }

// BottleNames are those of the bottles, which no project has.
func BottleNames(dirs []Dir) []string {
	return allNames(slices.DeleteFunc(slices.Clone(dirs), func(d Dir) bool { return d.Project }), "bottles", ".yaml")
}

func allNames(dirs []Dir, sub, ext string) (all []string) {
	for _, d := range dirs {
		names, _ := d.names(sub, ext)
		all = append(all, slices.DeleteFunc(names, func(n string) bool { return !name.MatchString(n) })...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// names are those of the files of a kind. A directory that is not there has
// none.
func (d Dir) names(sub, ext string) (names []string, err error) {
	dir, most := filepath.Join(d.Path, sub), mostListed
	if d.Project {
		most = mostOfProjects
	}
	if sub == "agents" && d.NoAgents {
		return nil, nil
	}
	files, err := d.List(dir, most+1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if len(files) > most {
		files, err = files[:most], fmt.Errorf("%s has more than %d files, of which only so many are looked at", shown(dir), most)
	}
	for _, f := range files {
		if n, ok := strings.CutSuffix(f, ext); ok && !strings.HasPrefix(n, ".") {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, err
}
