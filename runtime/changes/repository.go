package changes

import (
	"path"
	"slices"
	"strings"
)

// git takes any directory for a repository that holds certain names, even one
// below the project: settings there make it run programs as those of .git do
// (is_git_directory in git's setup.c).
var (
	settings = []string{"config", "config.worktree", "hooks", "commondir"}
	marks    = []string{"head", "objects", "refs"}
)

// repositories looks for them, in lower case: a file system may not tell.
type repositories struct {
	user    user
	written map[string]bool // what will be there
	known   map[string]standing
}

// standing is what a directory is to git.
type standing struct{ was, becomes bool }

// withhold takes out settings of repositories, and of directories that would
// become one, that as well: an earlier apply may have written its settings.
func (a *Application) withhold(u user) error {
	r := repositories{user: u, written: map[string]bool{}, known: map[string]standing{}}
	for _, c := range a.Todo {
		if c.Kind != Deleted {
			r.written[strings.ToLower(c.Path)] = true
		}
	}
	var todo []Change
	for _, c := range a.Todo {
		out, err := r.withheld(c)
		switch {
		case err != nil:
			return err
		case out:
			a.Withheld = append(a.Withheld, c)
		default:
			todo = append(todo, c)
		}
	}
	a.Todo = todo
	return nil
}

func (r repositories) withheld(c Change) (bool, error) {
	for at := 0; at < len(c.Path); {
		name, _, _ := strings.Cut(c.Path[at:], "/")
		dir := strings.TrimSuffix(c.Path[:at], "/")
		at += len(name) + 1
		name = strings.ToLower(name)
		setting := slices.Contains(settings, name)
		if !setting && !slices.Contains(marks, name) || strings.EqualFold(path.Base(dir), ".git") { // see harmless
			continue
		}
		s, err := r.standing(dir)
		if err != nil {
			return false, err
		}
		if s.becomes && !s.was || s.was && setting {
			return true, nil
		}
	}
	return false, nil
}

func (r repositories) standing(dir string) (s standing, err error) {
	s, found := r.known[dir]
	if found {
		return s, nil
	}
	was, becomes := map[string]bool{}, map[string]bool{}
	for _, name := range []string{"HEAD", "objects", "refs", "commondir"} {
		if was[name], err = r.there(join(dir, name)); err != nil {
			return s, err
		}
		becomes[name] = was[name] || r.written[strings.ToLower(join(dir, name))]
	}
	s = standing{was: isRepository(was), becomes: isRepository(becomes)}
	r.known[dir] = s
	return s, nil
}

func isRepository(has map[string]bool) bool {
	return has["HEAD"] && (has["commondir"] || has["objects"] && has["refs"])
}

func (r repositories) there(path string) (bool, error) {
	_, err := r.user.stat(path)
	if vanished(err) {
		return false, nil
	}
	return err == nil, err
}
