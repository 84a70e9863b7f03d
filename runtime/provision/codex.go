package provision

import (
	"encoding/json"

	"carboy/runtime/initproto"
)

// codex is OpenAI's Codex, as of version 0.169.0: options from its --help,
// files as it writes them itself.
func codex() provider {
	return provider{
		skills:      "~/.codex/skills",
		credentials: []string{"CODEX_API_KEY", "OPENAI_API_KEY", ChatGPT},
		permissions: []string{"read-only", "workspace-write", "danger-full-access"},
		command:     codexCommand,
		env:         func(Agent) []string { return nil },
		state:       codexState,
	}
}

func codexCommand(a Agent) []string {
	args := []string{"codex"}
	if a.Task != "" {
		args = append(args, "exec", "--skip-git-repo-check")
	}
	if a.Permissions == "" {
		args = append(args, "--dangerously-bypass-approvals-and-sandbox") // the bottle is what holds it
	} else {
		args = append(args, "--sandbox", a.Permissions)
	}
	// No question at the start, and no look for a newer version.
	args = append(args, "--config", "projects={"+tomlString(a.Workdir)+`={trust_level="trusted"}}`,
		"--config", "check_for_update_on_startup=false")
	if a.Model != "" {
		args = append(args, "--model", a.Model)
	}
	args = append(args, a.Args...)
	if a.Task != "" {
		args = append(args, "--", a.Task)
	}
	return args
}

// tomlString is a basic string: what JSON writes is one of TOML's.
func tomlString(s string) string {
	b, _ := json.Marshal(s) // no string fails
	return string(b)
}

// codexState has its system prompt and its login. The login is a file, because
// an interactive session takes no variable; the file is in memory.
func codexState(a Agent) ([]initproto.File, error) {
	var files []initproto.File
	if a.Prompt != "" {
		files = append(files, a.own("~/.codex/AGENTS.md", []byte(a.Prompt+"\n")))
	}
	for _, name := range a.Credentials() {
		if value := a.Variables[name]; value != "" {
			login, err := codexLogin(name, value)
			if err != nil {
				return nil, err
			}
			const path = runDir + "codex-auth.json"
			return append(files, a.secret(path, login), initproto.File{Path: "~/.codex/auth.json", Owner: a.User, Link: path}), nil
		}
	}
	return files, nil
}

// codexLogin is what Codex finds as its auth.json.
func codexLogin(variable, value string) ([]byte, error) {
	if variable == ChatGPT {
		return grantedChatGPT(value)
	}
	return json.Marshal(object{"OPENAI_API_KEY": value})
}
