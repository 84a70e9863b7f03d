package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// dockerConfig is what of Docker's config.json matters here. The format is
// docker/cli's, cli/config/configfile; its own code opens files and runs
// helpers with the rights of the process.
type dockerConfig struct {
	Auths       map[string]entry  `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

type entry struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

// parse does not quote the file in an error: it holds secrets.
func parse(b []byte) (c dockerConfig, err error) {
	if err := json.Unmarshal(b, &c); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return c, fmt.Errorf("not JSON at byte %d", syntax.Offset)
		}
		return c, errors.New("not a Docker configuration")
	}
	return c, nil
}

// hubKey is the name under which docker keeps the login of docker.io.
const hubKey = "https://index.docker.io/v1/"

func key(host string) string {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return hubKey
	}
	return host
}

// helper is the credential helper for a registry, without docker-credential-.
func (c dockerConfig) helper(host string) string {
	for _, k := range []string{key(host), host} {
		if name, ok := c.CredHelpers[k]; ok {
			return name
		}
	}
	return c.CredsStore
}

// login looks for the exact key, then for one that means the same host.
func (c dockerConfig) login(host string) (login, error) {
	k := key(host)
	if e, ok := c.Auths[k]; ok {
		return e.login(k)
	}
	for _, other := range slices.Sorted(maps.Keys(c.Auths)) {
		if key(hostname(other)) == k {
			return c.Auths[other].login(other)
		}
	}
	return login{}, nil
}

// hostname strips scheme and path, which older logins have.
func hostname(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	return host
}

func (e entry) login(key string) (login, error) {
	if e.IdentityToken != "" {
		return login{secret: e.IdentityToken}, nil
	}
	if e.Auth == "" {
		return login{user: e.Username, secret: e.Password}, nil
	}
	b, err := base64.StdEncoding.DecodeString(e.Auth)
	user, secret, ok := strings.Cut(string(b), ":")
	if err != nil || !ok || user == "" {
		return login{}, fmt.Errorf("the entry of %q is not a base64 of user:password", key)
	}
	return login{user: user, secret: strings.Trim(secret, "\x00")}, nil
}
