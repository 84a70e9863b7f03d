package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"carboy/runtime/manifest"
)

// Secret is a value that a plan only names. It is fetched once the plan has been
// seen and agreed to.
type Secret struct {
	Name string
	File bool // in /run/secrets; else a variable
	From manifest.Source
}

// Bounds of a secret, in bytes: of a variable the kernel takes 128 KiB with its
// name (MAX_ARG_STRLEN), of a credential systemd 1 MiB (CREDENTIAL_SIZE_MAX).
const (
	mostVariable = 128<<10 - 256
	mostFile     = 1 << 20
	allFiles     = 2 << 20 // what one message to carboy-init holds, with room
)

// give puts the values of --secret in the place of those that manifests ask
// for. One that nobody asked for is a further variable.
func give(r Request, env, files map[string]manifest.Source) error {
	for _, g := range r.Secrets {
		name, text, ok := strings.Cut(g, "=")
		if !ok || text == "" {
			return invalid("secret %q: give NAME=FILE, NAME=fd:NUMBER or NAME=credential:NAME", name)
		}
		if slices.ContainsFunc(slices.Concat(r.EnvFile, r.Env), func(e string) bool { n, _, _ := strings.Cut(e, "="); return n == name }) {
			return invalid("%s is given twice, as a variable and as a secret", name)
		}
		from := manifest.ParseGiven(text)
		_, isVariable := env[name]
		_, isFile := files[name]
		if isFile {
			files[name] = from
		}
		if isVariable || !isFile {
			env[name] = from
		}
	}
	return nil
}

// want takes over what is known already and notes what has to be fetched.
func (p *Plan) want(r Request, asked map[string]manifest.Source, file bool) error {
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		s := Secret{Name: name, File: file, From: asked[name]}
		if err := s.check(); err != nil {
			return err
		}
		list := &p.Env
		if file {
			list = &p.Secrets
		}
		*list = append(*list, name)
		if !file {
			p.secret[name] = s.From.Kind != manifest.Literal // which stands in a file for all to read
		}
		value := s.From.Text
		switch s.From.Kind {
		case manifest.Literal:
		case manifest.Forwarded:
			var err error
			if value, err = forward(s.From.Text, r.Lookup); err != nil {
				return err
			}
		default:
			p.pending = append(p.pending, s)
			continue
		}
		if err := p.set(s, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

func (s Secret) check() error {
	if !s.File && !variableName.MatchString(s.Name) {
		return invalid("environment variable name %q", s.Name)
	}
	if err := s.From.Check(); err != nil {
		return invalid("%s: %w", s.Name, err)
	}
	if s.From.Kind == manifest.Descriptor {
		if _, err := strconv.ParseUint(s.From.Text, 10, 16); err != nil {
			return invalid("%s: fd:%s: give the number of a file descriptor", s.Name, s.From.Text)
		}
	}
	return nil
}

func (p *Plan) set(s Secret, value []byte) error {
	if s.File {
		if len(value) > mostFile {
			return invalid("secret %s: more than %d bytes", s.Name, mostFile)
		}
		p.secretFiles[s.Name] = value
		return nil
	}
	if len(value) > mostVariable {
		return invalid("environment variable %s: more than %d bytes", s.Name, mostVariable)
	}
	if !utf8.Valid(value) { // frames to carboy-init are JSON, which would change it
		return invalid("value of environment variable %s is not UTF-8", s.Name)
	}
	return p.addEnv(s.Name, string(value))
}

// Pending are the values that Resolve will fetch.
func (p *Plan) Pending() []Secret { return slices.Clone(p.pending) }

// Fingerprint tells two plans apart, before their secrets are fetched.
func (p *Plan) Fingerprint() (string, error) {
	shown, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	hidden, err := json.Marshal([]any{p.provision, p.env, p.secretFiles, p.pending})
	sum := sha256.Sum256(append(shown, hidden...))
	return hex.EncodeToString(sum[:]), err
}

// Resolve fetches the values that the plan only names. A plan is brought up
// only after that.
func (p *Plan) Resolve(ctx context.Context, fetch func(context.Context, Secret) ([]byte, error)) error {
	for _, s := range p.pending {
		value, err := fetch(ctx, s)
		if err == nil {
			err = p.set(s, value)
		}
		if err != nil {
			return fmt.Errorf("secret %s: %w", s.Name, err)
		}
	}
	sum := 0
	for _, value := range p.secretFiles {
		sum += len(value)
	}
	if sum > allFiles {
		return invalid("the secrets of this bottle have more than %d bytes", allFiles)
	}
	p.pending = nil
	return nil
}
