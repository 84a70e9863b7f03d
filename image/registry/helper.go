package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

const (
	helperTime  = 30 * time.Second
	helperBytes = 64 << 10
)

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// What helpers say instead of failing, and for whom they keep a token
// (docker/docker-credential-helpers, credentials/error.go and client).
const (
	helperNotFound = "credentials not found in native keychain"
	tokenUser      = "<token>"
)

// ask runs a credential helper. It gets the registry's key on its input and
// answers in JSON.
func (s Source) ask(ctx context.Context, name, key string) (login, error) {
	if !helperName.MatchString(name) {
		return login{}, fmt.Errorf("not a name of one: %w", errdefs.ErrInvalidArgument)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, helperTime, fmt.Errorf("it did not answer within %v", helperTime))
	defer cancel()
	c := s.Command(ctx, "docker-credential-"+name, "get")
	out := &bounded{left: helperBytes}
	c.Stdin, c.Stdout = strings.NewReader(key), out
	if err := c.Run(); err != nil {
		said := strings.TrimSpace(out.String())
		if said == helperNotFound {
			return login{}, nil
		}
		return login{}, errors.Join(helperError(err, said), context.Cause(ctx))
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return login{}, errors.New("its answer is not JSON") // and may hold the secret
	}
	if answer.Username == tokenUser {
		answer.Username = ""
	}
	return login{user: answer.Username, secret: answer.Secret}, nil
}

// helperError shows what a helper says when it fails, which is on its output.
func helperError(err error, said string) error {
	var exit *exec.ExitError
	const notFound = 127 // of env(1)
	if errors.As(err, &exit) && exit.ExitCode() == notFound {
		return errors.New("it is not installed where that user finds programs")
	}
	return fmt.Errorf("%w: %s", err, Printable(said))
}

// bounded keeps the first bytes and fails on more.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("too much output")
	}
	return b.Buffer.Write(p)
}
