package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

// Source is one of Docker's configuration files, and the user with whose rights
// it is read and its credential helpers run.
type Source struct {
	Path     string
	Required bool // the user named it: it has to be there
	Read     func(path string, limit int64) ([]byte, error)
	Command  func(ctx context.Context, name string, args ...string) *exec.Cmd
}

// Logins finds credentials, in the order of its sources. It is safe for
// concurrent use and remembers what it found.
type Logins struct {
	Sources func() ([]Source, error) // asked only when a registry wants credentials
	Say     func(string)             // told which credentials are used; nil is silent

	mu    sync.Mutex
	found map[string]login
}

// login is zero for a registry that is asked anonymously. A secret without a
// user is an identity token.
type login struct{ user, secret, source string }

func (l login) String() string {
	if l.user == "" {
		return "an identity token from " + Printable(l.source)
	}
	return "the credentials of " + Printable(l.user) + " from " + Printable(l.source)
}

// find is asked only by a registry that wants credentials.
func (l *Logins) find(ctx context.Context, host string) (user, secret string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if got, ok := l.found[host]; ok {
		return got.user, got.secret, nil
	}
	got, err := l.search(ctx, host)
	if err != nil {
		return "", "", fmt.Errorf("credentials for %s: %w", Printable(host), err)
	}
	if l.found == nil {
		l.found = map[string]login{}
	}
	l.found[host] = got
	if got.secret != "" && l.Say != nil {
		l.Say(fmt.Sprintf("registry %s: using %s", Printable(host), got))
	}
	return got.user, got.secret, nil
}

func (l *Logins) search(ctx context.Context, host string) (login, error) {
	sources, err := l.Sources()
	if err != nil {
		return login{}, err
	}
	for _, s := range sources {
		got, err := s.login(ctx, host)
		if !s.Required && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			log.G(ctx).WithField("file", s.Path).Debug("no registry credentials: the file cannot be read")
			continue
		}
		if err != nil {
			return login{}, fmt.Errorf("%s: %w", s.Path, err)
		}
		log.G(ctx).WithField("file", s.Path).WithField("found", got.secret != "").Debug("looked for registry credentials")
		if got.secret != "" {
			return got, nil
		}
	}
	return login{}, nil
}

// told names the credentials that were used, and no secret.
func (l *Logins) told() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var used []string
	for _, got := range l.found {
		if got.secret != "" {
			used = append(used, got.String())
		}
	}
	slices.Sort(used)
	return strings.Join(slices.Compact(used), " and ")
}

const sourceBytes = 1 << 20

// login is what one file knows of a registry: by its helper first, as docker
// does it.
func (s Source) login(ctx context.Context, host string) (login, error) {
	b, err := s.Read(s.Path, sourceBytes)
	if err != nil {
		return login{}, err
	}
	file, err := parse(b)
	if err != nil {
		return login{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if name := file.helper(host); name != "" {
		got, err := s.ask(ctx, name, key(host))
		if err != nil {
			return login{}, fmt.Errorf("credential helper %q: %w", name, err)
		}
		if got.secret != "" {
			got.source = fmt.Sprintf("docker-credential-%s (%s)", name, s.Path)
			return got, nil
		}
	}
	got, err := file.login(host)
	got.source = s.Path
	return got, err
}
