package invoker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// getent asks every database that nsswitch.conf(5) names, of which a static
// program reads the files alone.
const getent = "/usr/bin/getent"

// MemberOf returns the first of the groups, by name or number, that the host's
// databases have the user in, and nothing where that is none. It fails with
// errdefs.ErrNotFound for a group that no database has, and for such a user.
func (u User) MemberOf(ctx context.Context, groups []string) (string, error) {
	name, ids, err := u.known(ctx)
	if err != nil {
		return "", err
	}
	found := ""
	for _, group := range groups { // each has to be there, whoever asks
		const id, members = 2, 3 // group(5)
		entry, err := entryOf(ctx, "group", group, members)
		if err != nil {
			return "", err
		}
		if found == "" && (slices.Contains(ids, entry[id]) || slices.Contains(strings.Split(entry[members], ","), name)) {
			found = group
		}
	}
	return found, nil
}

// known is the user's name, and the numbers of all groups.
func (u User) known(ctx context.Context) (name string, ids []string, err error) {
	const login, gid = 0, 3 // passwd(5)
	entry, err := entryOf(ctx, "passwd", strconv.Itoa(u.UID), gid)
	if err != nil {
		return "", nil, err
	}
	ids = []string{entry[gid], strconv.Itoa(u.GID)}
	for _, g := range u.Groups {
		ids = append(ids, strconv.Itoa(g))
	}
	more, err := ask(ctx, "initgroups", entry[login])
	if errors.Is(err, errNoDatabase) { // musl's has no such, and no databases but the files
		return entry[login], ids, nil
	}
	return entry[login], append(ids, strings.Fields(more)...), err
}

// entryOf is a line of a database that has a field of that number.
func entryOf(ctx context.Context, database, key string, field int) ([]string, error) {
	text, err := ask(ctx, database, key)
	if err != nil {
		return nil, err
	}
	entry := strings.Split(strings.TrimRight(text, "\n"), ":")
	if len(entry) <= field {
		return nil, fmt.Errorf("%s of %q: not understood", database, key)
	}
	return entry, nil
}

var errNoDatabase = errors.New("no such database")

// ask reads the files where nothing else can be asked. An answer does not depend
// on the caller's environment.
func ask(ctx context.Context, database, key string) (string, error) {
	c := exec.CommandContext(ctx, getent, database, key)
	c.Env = []string{}
	out, err := c.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), nil
	case errors.Is(err, os.ErrNotExist):
		return inFiles(database, key)
	case !errors.As(err, &exit):
		return "", fmt.Errorf("%s of %q: %w", database, key, err)
	}
	const unknownDatabase, unknownKey = 1, 2 // getent(1)
	switch exit.ExitCode() {
	case unknownDatabase:
		return "", fmt.Errorf("%s: %w", database, errNoDatabase)
	case unknownKey:
		return "", fmt.Errorf("%s: no entry for %q: %w", database, key, errdefs.ErrNotFound)
	}
	return "", fmt.Errorf("%s of %q: %w", database, key, err)
}

// inFiles is the entry of a name or number in a file of /etc.
func inFiles(database, key string) (string, error) {
	text, err := os.ReadFile("/etc/" + database)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", database, errNoDatabase)
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		const id = 2 // in both
		if fields := strings.Split(line, ":"); len(fields) > id && (fields[0] == key || fields[id] == key) {
			return line, nil
		}
	}
	return "", fmt.Errorf("%s: no entry for %q: %w", database, key, errdefs.ErrNotFound)
}
