// Package provision makes what an agent was granted into files, variables and
// a command of its container. It reads nothing and writes nothing: carboy-init
// writes the files, inside, before any code of the image runs.
package provision

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"

	"carboy/runtime/initproto"
	"carboy/runtime/skill"
)

// runDir is a tmpfs of the container: what is in it is in no layer.
const runDir = "/run/carboy/"

// Agent is what one agent is given.
type Agent struct {
	Provider string // Claude, Codex or Generic, which is also empty
	// User owns what the agent may change, as initproto.Spec.User.
	User string
	// Workdir is where its command starts, Root says that it is root there.
	Workdir string
	Root    bool

	Authority     []byte // certificate of the bottle's own, in PEM; empty where it intercepts nothing
	Prompt        string // system prompt
	Skills        []skill.Skill
	Model         string
	Permissions   string // in the provider's words
	Args          []string
	Task          string // what to do without a person; empty is a conversation
	RemoteControl bool

	Variables map[string]string // that were granted, secret ones too
	Secrets   map[string][]byte // files

	Proxy     netip.AddrPort
	Workspace string // where the project is; empty without one
	Git       Git
	SSH       []SSH
}

// Files are in the order in which they are written: what comes later may rest
// on what came before.
func (a Agent) Files() ([]initproto.File, error) {
	var files []initproto.File
	for _, step := range []func() ([]initproto.File, error){
		a.authorityFiles,
		a.promptFiles,
		a.skillFiles,
		a.gitFiles,
		a.sshFiles,
		a.providerFiles,
		a.secretFiles,
	} {
		more, err := step()
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	return files, nil
}

// Env are variables for the agent's command and every further one.
func (a Agent) Env() []string {
	env := a.authorityEnv()
	if a.Prompt != "" {
		env = append(env, "CARBOY_PROMPT_FILE="+promptPath)
	}
	if a.Task != "" {
		env = append(env, "CARBOY_TASK_FILE="+taskPath)
	}
	if a.hasGitConfig() {
		env = append(env, "GIT_CONFIG_SYSTEM="+gitConfigPath)
	}
	env = append(env, a.sshEnv()...)
	return append(env, a.provider().env(a)...)
}

// Where the agent's system prompt and its task are.
const (
	promptPath = runDir + "prompt.md"
	taskPath   = runDir + "task.md"
)

func (a Agent) promptFiles() ([]initproto.File, error) {
	var files []initproto.File
	if a.Prompt != "" {
		files = append(files, public(promptPath, []byte(a.Prompt+"\n")))
	}
	if a.Task != "" {
		files = append(files, public(taskPath, []byte(a.Task+"\n")))
	}
	return files, nil
}

// skillFiles go where the provider's program looks for them.
func (a Agent) skillFiles() ([]initproto.File, error) {
	var files []initproto.File
	for _, s := range a.Skills {
		for _, f := range s.Files {
			mode := uint32(0o644)
			if f.Executable {
				mode = 0o755
			}
			files = append(files, initproto.File{
				Path: a.provider().skills + "/" + s.Name + "/" + f.Path, Mode: mode, Owner: a.User, Data: f.Data,
			})
		}
	}
	return files, nil
}

// public is a file that everybody in the container reads and none but root
// changes.
func public(path string, data []byte) initproto.File {
	return initproto.File{Path: path, Mode: 0o444, Owner: "0:0", Data: data}
}

// own is a file that the agent may change.
func (a Agent) own(path string, data []byte) initproto.File {
	return initproto.File{Path: path, Mode: 0o600, Owner: a.User, Data: data}
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
