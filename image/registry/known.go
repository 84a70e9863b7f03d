package registry

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
)

// Known is what a source has, without any secret.
type Known struct {
	Hosts   []string // with a login in the file
	Helpers []string // programs that keep logins
}

// Known reads the file and asks no helper.
func (s Source) Known() (k Known, err error) {
	b, err := s.Read(s.Path, sourceBytes)
	if err != nil {
		return k, err
	}
	file, err := parse(b)
	if err != nil {
		return k, fmt.Errorf("%s: %w: %w", Printable(s.Path), err, errdefs.ErrInvalidArgument)
	}
	for _, key := range slices.Sorted(maps.Keys(file.Auths)) {
		k.Hosts = append(k.Hosts, Printable(hostname(key)))
	}
	helpers := slices.Collect(maps.Values(file.CredHelpers))
	if file.CredsStore != "" {
		helpers = append(helpers, file.CredsStore)
	}
	slices.Sort(helpers)
	for _, name := range slices.Compact(helpers) {
		k.Helpers = append(k.Helpers, Printable("docker-credential-"+name))
	}
	return k, nil
}
