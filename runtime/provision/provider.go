package provision

import (
	"slices"
	"strings"

	"carboy/runtime/initproto"
)

// Names of the providers.
const (
	Generic = "generic" // any program
	Claude  = "claude"  // Anthropic's Claude Code
	Codex   = "codex"   // OpenAI's Codex
)

// provider is what one kind of agent wants to find, and how it is started.
type provider struct {
	skills      string   // where it looks for skills
	credentials []string // variables that log it in
	permissions []string // its words for what it may do unasked
	command     func(a Agent) []string
	env         func(a Agent) []string
	state       func(a Agent) ([]initproto.File, error)
}

func find(name string) (provider, bool) {
	switch name {
	case "", Generic:
		return generic(), true
	case Claude:
		return claude(), true
	case Codex:
		return codex(), true
	default:
		return provider{}, false
	}
}

// provider is that of an agent that Check has passed.
func (a Agent) provider() provider {
	p, ok := find(a.Provider)
	if !ok {
		panic("provider " + a.Provider + " was not checked")
	}
	return p
}

// Check refuses what the provider does not know, with errdefs.ErrInvalidArgument.
func (a Agent) Check() error {
	p, ok := find(a.Provider)
	switch {
	case !ok:
		return invalid("provider %q: choose %s, %s or %s", a.Provider, Claude, Codex, Generic)
	case a.Permissions != "" && len(p.permissions) == 0:
		return invalid("permissions: only the providers %s and %s have them", Claude, Codex)
	case a.Permissions != "" && !slices.Contains(p.permissions, a.Permissions):
		return invalid("permissions %q: %s knows %s", a.Permissions, a.Provider, strings.Join(p.permissions, ", "))
	case a.Model != "" && p.command == nil:
		return invalid("model: only the providers %s and %s take one", Claude, Codex)
	case a.RemoteControl && a.Provider != Claude:
		return invalid("remote control: only the provider %s has it", Claude)
	case a.RemoteControl && a.Task != "":
		return invalid("remote control is for a conversation, not for a task")
	}
	return nil
}

// Command starts the provider's program, or is empty where the image or
// somebody else has to name one.
func (a Agent) Command() []string {
	if p := a.provider(); p.command != nil {
		return p.command(a)
	}
	return nil
}

// Credentials are the variables that log the provider's program in. It takes
// the first that is there.
func (a Agent) Credentials() []string { return a.provider().credentials }

func (a Agent) providerFiles() ([]initproto.File, error) {
	if state := a.provider().state; state != nil {
		return state(a)
	}
	return nil, nil
}

// generic leaves prompt and task to be read from their files.
func generic() provider {
	return provider{skills: "~/.agents/skills", env: func(Agent) []string { return nil }}
}
