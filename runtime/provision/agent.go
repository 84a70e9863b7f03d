// Package provision makes what an agent was granted into files and variables of
// its container. It reads nothing and writes nothing: carboy-init writes the
// files, inside, before any code of the image runs.
package provision

import "carboy/runtime/initproto"

// runDir is a tmpfs of the container: what is in it is in no layer.
const runDir = "/run/carboy/"

// Agent is what one agent is given.
type Agent struct {
	// User owns what the agent may change, as initproto.Spec.User.
	User      string
	Prompt    string // system prompt
	Authority []byte // certificate of the bottle's own, in PEM; empty where it intercepts nothing
}

// Files are in the order in which they are written: what comes later may rest
// on what came before.
func (a Agent) Files() ([]initproto.File, error) {
	var files []initproto.File
	for _, step := range []func() ([]initproto.File, error){
		a.authorityFiles,
		a.promptFiles,
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
	return env
}

// promptPath is where the agent's system prompt is.
const promptPath = runDir + "prompt.md"

func (a Agent) promptFiles() ([]initproto.File, error) {
	if a.Prompt == "" {
		return nil, nil
	}
	return []initproto.File{readOnly(promptPath, []byte(a.Prompt+"\n"))}, nil
}

// readOnly is a file that everybody in the container reads and none but root
// changes.
func readOnly(path string, data []byte) initproto.File {
	return initproto.File{Path: path, Mode: 0o444, Owner: "0:0", Data: data}
}
