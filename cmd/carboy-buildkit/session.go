package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"golang.org/x/sys/unix"

	"carboy/runtime/buildproto"
)

// attachables are what the controller may ask the client for beside files.
func attachables(b buildproto.Build) ([]session.Attachable, error) {
	secrets := map[string][]byte{}
	for _, s := range b.Secrets {
		value := s.Value
		if s.File != "" {
			var err error
			if value, err = readSecret(s.File); err != nil {
				return nil, wrong{fmt.Errorf("secret %s: %w", s.ID, err)}
			}
		}
		secrets[s.ID] = value
	}
	credentials, err := logins(b.Logins)
	if err != nil {
		return nil, wrong{fmt.Errorf("logins of registries: %w", err)}
	}
	all := []session.Attachable{
		secretsprovider.FromMap(secrets),
		authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: authprovider.LoadAuthConfig(credentials)}),
	}
	if len(b.SSH) == 0 {
		return all, nil
	}
	var agents []sshprovider.AgentConfig
	for _, a := range b.SSH {
		agents = append(agents, sshprovider.AgentConfig{ID: a.ID, Paths: a.Paths})
	}
	ssh, err := sshprovider.NewSSHAgentProvider(agents)
	if err != nil {
		return nil, wrong{fmt.Errorf("--ssh: %w", err)}
	}
	return append(all, ssh), nil
}

// logins are those of the user whose rights we have.
func logins(path string) (*configfile.ConfigFile, error) {
	if path == "" {
		return config.LoadDefaultConfigFile(tame{os.Stderr}), nil
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, config.ConfigFileName)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := regular(f); err != nil {
		return nil, err
	}
	defer f.Close()
	c := configfile.New(path)
	return c, c.LoadFromReader(f)
}

// readSecret never waits: a FIFO or a device is refused.
func readSecret(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := regular(f); err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, secretsprovider.MaxSecretSize+1))
	if err == nil && len(b) > secretsprovider.MaxSecretSize {
		err = fmt.Errorf("%s: more than %d bytes", path, secretsprovider.MaxSecretSize)
	}
	return b, err
}

// sharedKey keeps the copies of different contexts apart.
func sharedKey(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:])
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
