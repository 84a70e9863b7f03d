package provision

import (
	"maps"
	"slices"

	"carboy/runtime/initproto"
)

// SecretsDir holds an agent's secrets that are files. It is a tmpfs of the
// container.
const SecretsDir = "/run/secrets"

func (a Agent) secretFiles() ([]initproto.File, error) {
	var files []initproto.File
	for _, name := range slices.Sorted(maps.Keys(a.Secrets)) {
		files = append(files, a.secret(SecretsDir+"/"+name, a.Secrets[name]))
	}
	return files, nil
}

// secret is a file for the agent's user alone.
func (a Agent) secret(path string, data []byte) initproto.File {
	return initproto.File{Path: path, Mode: 0o400, Owner: a.User, Data: data}
}
