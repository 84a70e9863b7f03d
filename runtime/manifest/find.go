package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// OperatorDir is where the operator of a host writes manifests.
const OperatorDir = "/etc/carboy"

// Dir is a place manifests are read from. ReadFile has the rights of whom the
// directory belongs to.
type Dir struct {
	Path string
	// Project is set of a directory that whoever wrote a project filled: it may
	// have agents, and no bottle in it is ever looked at.
	Project bool
	// NoAgents is set where only bottles are looked for, as parts of others.
	NoAgents bool
	ReadFile func(path string, limit int64) ([]byte, error)
	// List returns the names in a directory, at most limit of them.
	List func(path string, limit int) ([]string, error)
}

// Find reads an agent and its bottle from the first directory that has the
// agent. Its bottle comes from there or from a later directory, never from an
// earlier one; a project's agent gets one that says `projects: true`.
func Find(dirs []Dir, agent string) (Agent, Bottle, error) {
	a, i, err := findAgent(dirs, agent)
	if err != nil {
		return Agent{}, Bottle{}, err
	}
	b, err := bottleOf(dirs, i, a)
	return a, b, err
}

func findAgent(dirs []Dir, agent string) (Agent, int, error) {
	if !name.MatchString(agent) {
		return Agent{}, 0, fmt.Errorf("agent name %q: %s: %w", cut(agent), forms["name"].hint, errdefs.ErrInvalidArgument)
	}
	for i, d := range dirs {
		a, err := d.agent(agent)
		if !errors.Is(err, fs.ErrNotExist) {
			return a, i, err
		}
	}
	return Agent{}, 0, missing(dirs, "agent "+agent, filepath.Join("agents", agent+".md"))
}

// bottleOf reads the bottle of an agent from the i-th directory.
func bottleOf(dirs []Dir, i int, a Agent) (Bottle, error) {
	if a.Project {
		i = 0 // it has none itself, and may name everybody's
	}
	b, err := (&family{dirs: dirs}).find(a.Bottle, i, a.At("bottle"), nil)
	if err != nil {
		return Bottle{}, err
	}
	if a.Project && !b.Projects {
		return Bottle{}, a.At("bottle").Fault(fmt.Errorf("an agent of a project may not use bottle %s: whoever trusts it with that writes `projects: true` into %s: %w",
			a.Bottle, shown(b.Source), errdefs.ErrInvalidArgument))
	}
	return b, nil
}

func missing(dirs []Dir, what, file string) error {
	var looked []string
	for _, d := range dirs {
		if ofAgents := strings.HasPrefix(file, "agents"); ofAgents && !d.NoAgents || !ofAgents && !d.Project {
			looked = append(looked, shown(filepath.Join(d.Path, file)))
		}
	}
	return fmt.Errorf("no %s: looked for %s: %w", what, strings.Join(looked, " and "), errdefs.ErrInvalidArgument)
}

func (d Dir) agent(name string) (Agent, error) {
	path := filepath.Join(d.Path, "agents", name+".md")
	if d.NoAgents {
		return Agent{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	b, err := d.ReadFile(path, maxSize)
	if err != nil {
		return Agent{}, fmt.Errorf("agent %s: %w", name, err)
	}
	a, err := ParseAgent(path, b)
	a.Name, a.Project = name, d.Project
	if err == nil && d.Project {
		err = a.forwardsNothing()
	}
	return a, err
}

// ParseAgent reads an agent's file.
func ParseAgent(path string, b []byte) (Agent, error) {
	if err := checkText(path, b); err != nil {
		return Agent{Source: path}, err
	}
	head, body := frontMatter(b)
	if len(head) > maxHead {
		return Agent{Source: path}, problem(path, 1, "more than %d KiB of front matter", maxHead>>10)
	}
	a := Agent{Source: path, Prompt: string(bytes.TrimSpace(body))}
	var err error
	a.places, err = decode(path, head, &a)
	return a, err
}

// forwardsNothing holds a project's agent to values that it has itself: what is
// the caller's is not its to ask for.
func (a Agent) forwardsNothing() error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(a.Env)) {
		if ParseSource(a.Env[key]).Kind != Literal {
			errs = append(errs, a.At("env", key).Fault(fmt.Errorf("env.%s: an agent of a project may have plain values only: the bottle says what is forwarded: %w",
				key, errdefs.ErrInvalidArgument)))
		}
	}
	return errors.Join(errs...)
}

func (d Dir) bottle(name string) (Bottle, error) {
	path := filepath.Join(d.Path, "bottles", name+".yaml")
	b, err := d.ReadFile(path, maxSize)
	if err != nil {
		return Bottle{}, fmt.Errorf("bottle %s: %w", name, err)
	}
	return ParseBottle(path, b)
}

// ParseBottle reads a bottle's file, without what it extends.
func ParseBottle(path string, b []byte) (Bottle, error) {
	bottle := Bottle{Source: path, Name: strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))}
	if err := checkText(path, b); err != nil {
		return bottle, err
	}
	var err error
	if bottle.places, err = decode(path, bytes.TrimPrefix(b, []byte("\ufeff")), &bottle); err != nil {
		return bottle, err
	}
	bottle.locate()
	return bottle, nil
}

// locate makes paths absolute, as who extends the bottle is somewhere else.
func (b *Bottle) locate() {
	dir := filepath.Dir(b.Source)
	from := func(path string) string {
		if path == "" || filepath.IsAbs(path) || strings.HasPrefix(path, "~/") {
			return path
		}
		return filepath.Join(dir, path)
	}
	if b.Build != nil {
		b.Build.Context = from(b.Build.Context)
	}
	for i := range b.Mounts {
		b.Mounts[i].Source = from(b.Mounts[i].Source)
	}
	for i, h := range b.SSH {
		if _, ok := AgentKey(h.Key); !ok {
			b.SSH[i].Key = from(h.Key)
		}
	}
}
