// Package proxy knows the engines that hold a bottle's only way out: how each
// is configured, started and asked for its health.
package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"carboy/runtime/bottlespec"
	"carboy/runtime/initproto"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/version"
)

// Names of the engines.
const (
	Pipelock  = "pipelock"
	Allowlist = "allowlist"
)

// Port is where every engine listens on its internal address.
const Port = 8888

// Engine is one kind of proxy. Its files go into bottlespec.ConfigDir; Path is
// the program in its container.
type Engine struct {
	Name string
	Path string
	Env  []string
	// EndsTunnels says that it ends by itself what a new policy does not allow.
	EndsTunnels bool

	decided func(line []byte) (Decision, bool)
	config  string // the file of its directory that it follows
	reloads func(from, to Config) bool
	args    func(listen netip.AddrPort) []string
	files   func(c Config) (map[string][]byte, error)
	held    func(s Secrets) ([]initproto.File, error)
}

// Config is what an engine is told to do. The allowlist engine takes a policy
// alone, without anything to intercept.
type Config struct {
	Policy policy.Policy
	Listen netip.AddrPort
	DLP    string // Block or Warn
	Known  bool   // there are known secrets to look for
}

// What is done about a secret on its way out.
const (
	Block = "block"
	Warn  = "warn"
)

// Secrets are for the engine's memory alone.
type Secrets struct {
	Certificate, Key []byte   // of the bottle's authority, in PEM; empty without one
	Known            []string // values that must not get out
}

// New returns the engine of that name, one of the constants above.
func New(name string) (Engine, error) {
	switch name {
	case Pipelock:
		return pipelock(), nil
	case Allowlist:
		return allowlist(), nil
	default:
		return Engine{}, fmt.Errorf("no proxy engine %q", name)
	}
}

// Command is the program and its arguments.
func (e Engine) Command(listen netip.AddrPort) []string {
	return append([]string{e.Path}, e.args(listen)...)
}

// Files renders the configuration directory. Nothing in it is secret.
func (e Engine) Files(c Config) (map[string][]byte, error) { return e.files(c) }

// Held are files in the memory of the engine's container, for user alone, who
// is "UID:GID".
func (e Engine) Held(s Secrets, user string) ([]initproto.File, error) {
	files, err := e.held(s)
	for i := range files {
		files[i].Owner, files[i].Mode = user, 0o400
	}
	return files, err
}

func allowlist() Engine {
	return Engine{
		Name: Allowlist,
		Path: "/carboy-egress",

		EndsTunnels: true, decided: allowlistDecision, config: policy.File,
		args: func(listen netip.AddrPort) []string {
			return []string{"--listen", listen.String(), "--config", bottlespec.ConfigDir, "--build", version.Build}
		},
		files: func(c Config) (map[string][]byte, error) {
			if len(c.Policy.Intercept) > 0 || c.Known {
				return nil, errors.New("the allowlist engine reads no content")
			}
			b, err := json.MarshalIndent(c.Policy, "", "  ")
			return map[string][]byte{policy.File: b}, err
		},
		held: func(Secrets) ([]initproto.File, error) { return nil, nil },
	}
}
