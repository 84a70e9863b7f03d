package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// mostSecret bounds one secret, in bytes.
const mostSecret = 1 << 20

// secretsVariable names the descriptor on which a supervisor in the background
// gets the secrets that were asked for where it was started.
const secretsVariable = "CARBOY_SECRETS_FD"

// secretReader fetches what a plan only names.
type secretReader struct {
	who invoker.User
}

func (s secretReader) fetch(ctx context.Context, want runtime.Secret) ([]byte, error) {
	text := want.From.Text
	switch want.From.Kind {
	case manifest.Prompted:
		return askSecret(ctx, secretQuestion(want.Name, text), insteadOfAsking(want.Name))
	case manifest.Credential:
		return s.credential(text)
	case manifest.File:
		b, err := s.who.ReadFile(text, mostSecret)
		return withoutNewline(b), asRequest(err)
	case manifest.Descriptor:
		return readDescriptor(ctx, text)
	}
	return nil, fmt.Errorf("a value of kind %d", want.From.Kind)
}

// asRequest is the class of errors about what the caller named.
func asRequest(err error) error {
	if err == nil || errdefs.IsInvalidArgument(err) {
		return err
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
}

// withoutNewline drops the one that editors and echo leave at the end.
func withoutNewline(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1]
	}
	return b
}

// credential reads what systemd put there for its service: systemd.exec(5),
// LoadCredential=.
func (s secretReader) credential(name string) ([]byte, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("there is no $CREDENTIALS_DIRECTORY: the systemd unit needs `LoadCredential=%s:FILE`, or give `--secret NAME=FILE`: %w", name, errdefs.ErrInvalidArgument)
	}
	b, err := s.who.ReadFile(filepath.Join(dir, name), mostSecret)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: the systemd unit needs `LoadCredential=%s:FILE`", err, name)
	}
	return withoutNewline(b), asRequest(err)
}

// readDescriptor reads all that comes on a descriptor of the caller's.
func readDescriptor(ctx context.Context, number string) ([]byte, error) {
	fd, err := strconv.ParseUint(number, 10, 16)
	if err != nil || fd == 1 || fd == 2 || !inherited(int(fd)) {
		return nil, fmt.Errorf("fd:%s: not a file descriptor that the caller opened: %w", number, errdefs.ErrInvalidArgument)
	}
	f := os.Stdin // stays open: its number must not become another file's
	if fd != 0 {
		f = os.NewFile(uintptr(fd), "fd:"+number)
		defer f.Close()
	}
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b, err := readBounded(f, "fd:"+number)
		done <- result{b, err}
	}()
	select {
	case r := <-done:
		return withoutNewline(r.b), r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func readBounded(r io.Reader, from string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, mostSecret+1))
	if len(b) > mostSecret {
		err = fmt.Errorf("%s: more than %d bytes: %w", from, mostSecret, errdefs.ErrInvalidArgument)
	}
	return b, err
}

// handed is what goes to a supervisor in the background: the secrets, and which
// plan was agreed to.
type handed struct {
	Plan        string
	Secrets     map[string][]byte
	Passphrases map[string][]byte // of ssh keys, by their files
}

func handedKey(s runtime.Secret) string {
	if s.File {
		return "file " + s.Name
	}
	return "variable " + s.Name
}

// gather fetches the secrets of a plan, and remembers them.
func gather(ctx context.Context, plan *runtime.Plan, who invoker.User) (h handed, err error) {
	h.Secrets, h.Passphrases = map[string][]byte{}, map[string][]byte{}
	if h.Plan, err = plan.Fingerprint(); err != nil {
		return h, err
	}
	reader := secretReader{who}
	return h, plan.Resolve(ctx, func(ctx context.Context, s runtime.Secret) ([]byte, error) {
		value, err := reader.fetch(ctx, s)
		h.Secrets[handedKey(s)] = value
		return value, err
	})
}

// receive is gather where another process has asked already. Manifests that
// were changed meanwhile, by an agent whose project they are in perhaps, are
// not what was agreed to.
func receive(ctx context.Context, plan *runtime.Plan) (h handed, err error) {
	f, err := inheritedFile(secretsVariable)
	if err != nil || f == nil {
		return h, errors.Join(errors.New("there is no word from the process that was asked"), err)
	}
	defer f.Close()
	if err := json.NewDecoder(f).Decode(&h); err != nil {
		return h, fmt.Errorf("receive the secrets: %w", err)
	}
	if now, err := plan.Fingerprint(); err != nil || now != h.Plan {
		return h, errors.Join(errors.New("the manifests have changed since they were shown: start again"), err)
	}
	return h, plan.Resolve(ctx, func(_ context.Context, s runtime.Secret) ([]byte, error) {
		return h.Secrets[handedKey(s)], nil
	})
}

// pipe returns an end to read it from, which the caller closes. It is in no
// file: who reads gets it from memory.
func (h handed) pipe() (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() { // a pipe holds 64 KiB
		_ = json.NewEncoder(write).Encode(h) // who does not read has ended, and that is told
		_ = write.Close()
	}()
	return read, nil
}
