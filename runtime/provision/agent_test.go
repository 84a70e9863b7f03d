package provision

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/initproto"
	"carboy/runtime/skill"
)

// everything is an agent that was granted all there is.
func everything(provider string) Agent {
	return Agent{
		Provider: provider, User: "node", Workdir: `/work "x"`, Prompt: "Be brief.", Model: "opus", Args: []string{"--verbose"},
		Skills: []skill.Skill{{Name: "paint", Files: []skill.File{
			{Path: "SKILL.md", Data: []byte("paint")}, {Path: "bin/dip", Executable: true, Data: []byte("dip")},
		}}},
		Variables: map[string]string{"OPENAI_API_KEY": "sk-1", "OTHER": "x"}, Secrets: map[string][]byte{"token": []byte("t")},
	}
}

func paths(files []initproto.File) (all []string) {
	for _, f := range files {
		all = append(all, f.Path)
	}
	return all
}

func find1(t *testing.T, files []initproto.File, path string) initproto.File {
	t.Helper()
	i := slices.IndexFunc(files, func(f initproto.File) bool { return f.Path == path })
	if i < 0 {
		t.Fatalf("no %s among %q", path, paths(files))
	}
	return files[i]
}

func TestFilesInOrder(t *testing.T) {
	for provider, want := range map[string][]string{
		Claude:  {"/run/carboy/prompt.md", "~/.claude/skills/paint/SKILL.md", "~/.claude/skills/paint/bin/dip", "~/.claude.json", "~/.claude/settings.json", "/run/secrets/token"},
		Codex:   {"/run/carboy/prompt.md", "~/.codex/skills/paint/SKILL.md", "~/.codex/skills/paint/bin/dip", "~/.codex/AGENTS.md", "/run/carboy/codex-auth.json", "~/.codex/auth.json", "/run/secrets/token"},
		Generic: {"/run/carboy/prompt.md", "~/.agents/skills/paint/SKILL.md", "~/.agents/skills/paint/bin/dip", "/run/secrets/token"},
	} {
		files, err := everything(provider).Files()
		if err != nil || !slices.Equal(paths(files), want) {
			t.Errorf("%s: %q, %v", provider, paths(files), err)
		}
	}
}

func TestModesAndOwners(t *testing.T) {
	files, err := everything(Claude).Files()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]initproto.File{
		"/run/carboy/prompt.md":           {Mode: 0o444, Owner: "0:0"},
		"~/.claude/skills/paint/SKILL.md": {Mode: 0o644, Owner: "node"},
		"~/.claude/skills/paint/bin/dip":  {Mode: 0o755, Owner: "node"},
		"~/.claude.json":                  {Mode: 0o600, Owner: "node", Merge: true},
		"/run/secrets/token":              {Mode: 0o400, Owner: "node"},
	} {
		if f := find1(t, files, path); f.Mode != want.Mode || f.Owner != want.Owner || f.Merge != want.Merge {
			t.Errorf("%s: mode %o, owner %s, merge %v", path, f.Mode, f.Owner, f.Merge)
		}
	}
	var state struct {
		Projects map[string]struct{ HasTrustDialogAccepted bool }
	}
	if err := json.Unmarshal(find1(t, files, "~/.claude.json").Data, &state); err != nil || !state.Projects[`/work "x"`].HasTrustDialogAccepted {
		t.Errorf("%+v, %v", state, err)
	}
}

// What is on a disk of the host, the snapshot, holds no login.
func TestLoginInMemory(t *testing.T) {
	files, err := everything(Codex).Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.Contains(string(f.Data), "sk-1") && !strings.HasPrefix(f.Path, "/run/") {
			t.Errorf("%s holds the login", f.Path)
		}
	}
	if f := find1(t, files, "~/.codex/auth.json"); f.Link != "/run/carboy/codex-auth.json" || !strings.Contains(string(find1(t, files, f.Link).Data), "sk-1") {
		t.Errorf("the login: %+v", f)
	}
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		agent Agent
		want  string
	}{
		{Agent{Provider: Claude}, "claude --dangerously-skip-permissions"},
		{Agent{Provider: Claude, Permissions: "plan", Model: "opus", Prompt: "x", Args: []string{"--verbose"}, Task: "-p"}, "claude --permission-mode plan --model opus --append-system-prompt-file /run/carboy/prompt.md --verbose --print -- -p"},
		{Agent{Provider: Claude, RemoteControl: true}, "claude --dangerously-skip-permissions --remote-control"},
		{Agent{Provider: Codex, Workdir: "/w"}, `codex --dangerously-bypass-approvals-and-sandbox --config projects={"/w"={trust_level="trusted"}} --config check_for_update_on_startup=false`},
		{Agent{Provider: Codex, Workdir: "/w", Task: "do", Permissions: "read-only", Model: "m"}, `codex exec --skip-git-repo-check --sandbox read-only --config projects={"/w"={trust_level="trusted"}} --config check_for_update_on_startup=false --model m -- do`},
		{Agent{Provider: Generic, Task: "x"}, ""},
		{Agent{}, ""},
	} {
		if err := tt.agent.Check(); err != nil {
			t.Errorf("%+v: %v", tt.agent, err)
		}
		if got := strings.Join(tt.agent.Command(), " "); got != tt.want {
			t.Errorf("%+v: %s", tt.agent, got)
		}
	}
}

func TestEnv(t *testing.T) {
	env := Agent{Provider: Claude, Prompt: "x", Task: "y", Root: true}.Env()
	for _, want := range []string{"CARBOY_PROMPT_FILE=/run/carboy/prompt.md", "CARBOY_TASK_FILE=/run/carboy/task.md", "IS_SANDBOX=1", "DISABLE_AUTOUPDATER=1"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is not in %q", want, env)
		}
	}
	if env := (Agent{Provider: Claude}).Env(); slices.Contains(env, "IS_SANDBOX=1") {
		t.Errorf("%q", env)
	}
}

func TestCheck(t *testing.T) {
	for _, a := range []Agent{
		{Provider: "gemini"}, {Model: "x"}, {Permissions: "plan"}, {Provider: Codex, Permissions: "plan"},
		{Provider: Codex, RemoteControl: true}, {Provider: Claude, RemoteControl: true, Task: "x"},
	} {
		if err := a.Check(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", a, err)
		}
	}
}
