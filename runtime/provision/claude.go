package provision

import (
	"encoding/json"

	"carboy/runtime/initproto"
)

// claude is Claude Code, as of version 2.1.332: options from its --help, the
// names in its files as it writes them itself.
func claude() provider {
	return provider{
		skills:      "~/.claude/skills",
		credentials: []string{"CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_API_KEY"},
		permissions: []string{"acceptEdits", "auto", "bypassPermissions", "default", "dontAsk", "manual", "plan"},
		command:     claudeCommand,
		env:         claudeEnv,
		state:       claudeState,
	}
}

func claudeCommand(a Agent) []string {
	args := []string{"claude"}
	if a.Permissions == "" {
		args = append(args, "--dangerously-skip-permissions") // the bottle is what holds it
	} else {
		args = append(args, "--permission-mode", a.Permissions)
	}
	if a.Model != "" {
		args = append(args, "--model", a.Model)
	}
	if a.Prompt != "" {
		args = append(args, "--append-system-prompt-file", promptPath)
	}
	if a.RemoteControl {
		args = append(args, "--remote-control")
	}
	args = append(args, a.Args...)
	if a.Task != "" {
		args = append(args, "--print", "--", a.Task)
	}
	return args
}

func claudeEnv(a Agent) []string {
	// What it would send beside its work, and updates of itself, which no
	// bottle outlives.
	env := []string{"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1"}
	if a.Root {
		env = append(env, "IS_SANDBOX=1") // else it refuses to skip permissions as root
	}
	return env
}

type object = map[string]any

// claudeState answers what it asks at a first start.
func claudeState(a Agent) ([]initproto.File, error) {
	state, err := json.Marshal(object{
		"hasCompletedOnboarding": true,
		"projects":               object{a.Workdir: object{"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true}},
	})
	if err != nil {
		return nil, err
	}
	files := []initproto.File{merged(a.own("~/.claude.json", state))}
	if a.Permissions == "" {
		files = append(files, merged(a.own("~/.claude/settings.json", []byte(`{"skipDangerousModePermissionPrompt": true}`))))
	}
	return files, nil
}

// merged leaves the rest of what the image has there.
func merged(f initproto.File) initproto.File {
	f.Merge = true
	return f
}
