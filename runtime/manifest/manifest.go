// Package manifest reads what an operator or a user wrote down about agents
// and bottles: agents/NAME.md (YAML front matter, the body is the prompt) and
// bottles/NAME.yaml. It says what is asked for; what is granted is the plan's.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/goccy/go-yaml"
)

// Agent is agents/NAME.md.
type Agent struct {
	Name        string            `yaml:"-"`
	Source      string            `yaml:"-"` // the file it was read from
	Prompt      string            `yaml:"-"`
	Bottle      string            `yaml:"bottle"`
	Provider    string            `yaml:"provider"`    // claude, codex or generic
	Model       string            `yaml:"model"`       // the provider's name of it
	Permissions string            `yaml:"permissions"` // the provider's word; by default it asks for nothing
	Command     []string          `yaml:"command"`     // instead of the provider's
	Args        []string          `yaml:"args"`        // after the provider's own
	Skills      []string          `yaml:"skills"`      // names of directories
	Env         map[string]string `yaml:"env"`
}

// Bottle is bottles/NAME.yaml: what an agent in it may do. An environment
// value is literal, or ${NAME} for a variable forwarded from the caller.
type Bottle struct {
	Source    string            `yaml:"-"`
	Image     string            `yaml:"image"`
	User      string            `yaml:"user"`
	Workdir   string            `yaml:"workdir"`
	Runtime   string            `yaml:"runtime"`
	Env       map[string]string `yaml:"env"`
	Secrets   map[string]string `yaml:"secrets"` // files in /run/secrets; values as in Env, but not literal
	Egress    Egress            `yaml:"egress"`
	Proxy     Proxy             `yaml:"proxy"`
	Limits    Limits            `yaml:"limits"`
	Workspace Workspace         `yaml:"workspace"`
	Build     *Build            `yaml:"build"`
	Git       Git               `yaml:"git"`
	SSH       []SSH             `yaml:"ssh"`
}

// Git is what git in the bottle is told.
type Git struct {
	Name      string            `yaml:"name"`
	Email     string            `yaml:"email"`
	InsteadOf map[string]string `yaml:"instead-of"` // URL that is used, for the prefix that is written
}

// SSH is a host that the agent may reach by ssh. The key stays outside.
type SSH struct {
	Host       string   `yaml:"host"`     // as the agent writes it
	HostName   string   `yaml:"hostname"` // where it is; default Host
	Port       uint16   `yaml:"port"`     // default 22
	User       string   `yaml:"user"`
	Key        string   `yaml:"key"`         // file of the private key; empty takes one of the caller's ssh-agent
	KnownHosts []string `yaml:"known-hosts"` // its public keys, as "ssh-ed25519 AAAA..."
}

// Build is how the image is made that the agent gets: before each start, which
// costs little where nothing has changed. Relative paths start at the manifest.
type Build struct {
	Context    string            `yaml:"context"`
	Dockerfile string            `yaml:"dockerfile"` // default Dockerfile in the context
	Target     string            `yaml:"target"`
	Args       map[string]string `yaml:"args"`
	Network    string            `yaml:"network"` // of RUN: egress, none or host
}

// Workspace is where a project appears, and how. Which one is the caller's to
// say.
type Workspace struct {
	Target string `yaml:"target"`
	Mode   string `yaml:"mode"` // copy, overlay or bind
}

// Egress is where the proxy may connect to for the agent.
type Egress struct {
	Allow   []Allowed `yaml:"allow"`
	Presets []string  `yaml:"presets"` // named lists of hosts
	Private []string  `yaml:"private"` // private addresses or prefixes that may be reached
	DLP     string    `yaml:"dlp"`     // block or warn: what pipelock does about secrets on their way out
	TLS     string    `yaml:"tls"`     // of the hosts that say nothing themselves: intercept or passthrough
}

// Allowed is a host pattern, written as text alone or as {host, tls}.
type Allowed struct {
	Host string `yaml:"host"`
	TLS  string `yaml:"tls"` // intercept or passthrough
}

// UnmarshalYAML implements yaml.InterfaceUnmarshaler.
func (a *Allowed) UnmarshalYAML(unmarshal func(any) error) error {
	if err := unmarshal(&a.Host); err == nil {
		return nil
	}
	type plain Allowed
	return unmarshal((*plain)(a))
}

// Proxy chooses the engine.
type Proxy struct {
	Engine string `yaml:"engine"`
	Image  string `yaml:"image"`
}

// Limits bound the agent's container.
type Limits struct {
	Memory string  `yaml:"memory"` // as 512MiB or 8GiB
	CPUs   float64 `yaml:"cpus"`
	Pids   int64   `yaml:"pids"`
	Disk   string  `yaml:"disk"`
}

// OperatorDir is where the operator of a host writes manifests.
const OperatorDir = "/etc/carboy"

// maxSize bounds a manifest, in bytes.
const maxSize = 1 << 20

// Dir is a place manifests are read from. ReadFile has the rights of whom the
// directory belongs to.
type Dir struct {
	Path     string
	ReadFile func(path string, limit int64) ([]byte, error)
}

var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?$`)

// Find reads an agent and its bottle from the first directory that has the
// agent. Its bottle comes from there or from a later directory, never from an
// earlier one: what an operator wrote is not changed by a user's file.
func Find(dirs []Dir, agent string) (Agent, Bottle, error) {
	if !name.MatchString(agent) {
		return Agent{}, Bottle{}, fmt.Errorf("agent name %q: use lower-case letters, digits, '.', '_' and '-', at most 40: %w", agent, errdefs.ErrInvalidArgument)
	}
	for i, d := range dirs {
		a, err := d.agent(agent)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Agent{}, Bottle{}, err
		}
		b, err := findBottle(dirs[i:], a)
		return a, b, err
	}
	return Agent{}, Bottle{}, missing(dirs, "agent "+agent, filepath.Join("agents", agent+".md"))
}

func findBottle(dirs []Dir, a Agent) (Bottle, error) {
	if a.Bottle == "" {
		return Bottle{}, fmt.Errorf("%s: no bottle: the front matter needs a line such as `bottle: dev`: %w", a.Source, errdefs.ErrInvalidArgument)
	}
	if !name.MatchString(a.Bottle) {
		return Bottle{}, fmt.Errorf("%s: bottle name %q: %w", a.Source, a.Bottle, errdefs.ErrInvalidArgument)
	}
	for _, d := range dirs {
		b, err := d.bottle(a.Bottle)
		if !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	return Bottle{}, missing(dirs, "bottle "+a.Bottle+" (named by "+a.Source+")", filepath.Join("bottles", a.Bottle+".yaml"))
}

func missing(dirs []Dir, what, file string) error {
	var looked []string
	for _, d := range dirs {
		looked = append(looked, filepath.Join(d.Path, file))
	}
	return fmt.Errorf("no %s: looked for %s: %w", what, strings.Join(looked, " and "), errdefs.ErrInvalidArgument)
}

func (d Dir) agent(name string) (Agent, error) {
	path := filepath.Join(d.Path, "agents", name+".md")
	b, err := d.ReadFile(path, maxSize)
	if err != nil {
		return Agent{}, fmt.Errorf("agent %s: %w", name, err)
	}
	head, body := frontMatter(b)
	a := Agent{Name: name, Source: path, Prompt: strings.TrimSpace(string(body))}
	return a, decode(path, head, &a)
}

func (d Dir) bottle(name string) (Bottle, error) {
	path := filepath.Join(d.Path, "bottles", name+".yaml")
	b, err := d.ReadFile(path, maxSize)
	if err != nil {
		return Bottle{}, fmt.Errorf("bottle %s: %w", name, err)
	}
	bottle := Bottle{Source: path}
	return bottle, decode(path, b, &bottle)
}

// frontMatter splits a Markdown file at its --- lines. The head keeps its
// first line, so that line numbers in errors are the file's.
func frontMatter(b []byte) (head, body []byte) {
	const mark = "---\n"
	text := bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	if !bytes.HasPrefix(text, []byte(mark)) {
		return nil, text
	}
	head, body, found := bytes.Cut(text[len(mark):], []byte("\n"+mark))
	if !found {
		head = bytes.TrimSuffix(head, []byte("\n---"))
	}
	return append([]byte("\n"), head...), body
}

// decode is strict. Its errors name file and line.
func decode(path string, b []byte, v any) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.DisallowUnknownField())
	if err := d.Decode(v); err != nil {
		return explain(path, err, v)
	}
	var rest any
	if err := d.Decode(&rest); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one YAML document: %w", path, errdefs.ErrInvalidArgument)
	}
	return nil
}

func explain(path string, err error, v any) error {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fmt.Errorf("%s: not valid YAML: %w", path, errdefs.ErrInvalidArgument)
	}
	tok := at.GetToken()
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%s:%d: unknown key %q%s: %w", path, tok.Position.Line, tok.Value, Suggest(tok.Value, keys(reflect.TypeOf(v))), errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("%s:%d: %s: %w", path, tok.Position.Line, at.GetMessage(), errdefs.ErrInvalidArgument)
}

// keys are those that a file of this type may hold, at any depth.
func keys(t reflect.Type) []string {
	var all []string
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "-" {
			all = append(append(all, key), keys(t.Field(i).Type)...)
		}
	}
	return all
}
