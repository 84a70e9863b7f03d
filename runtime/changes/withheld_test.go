package changes

import (
	"slices"
	"testing"
)

func paths(all []Change) (names []string) {
	for _, c := range all {
		if c.Type != "directory" {
			names = append(names, c.Path)
		}
	}
	slices.Sort(names)
	return names
}

// TestPlanWithholds what makes git run programs: settings of a repository that
// is called .git, or not, or that becomes one.
func TestPlanWithholds(t *testing.T) {
	for _, tc := range []struct {
		name              string
		project, writes   []string // files
		written, withheld []string
	}{
		{"a project", []string{"a"}, []string{"config", "hooks/x", "HEAD", "objects/o"}, []string{"HEAD", "config", "hooks/x", "objects/o"}, nil},
		{".git", []string{".git/HEAD"}, []string{".git/config", ".git/objects/o", ".git/refs/r"}, []string{".git/objects/o", ".git/refs/r"}, []string{".git/config"}},
		{"an agent's .git", nil, []string{"s/.git/HEAD", "s/.git/hooks/x", "s/.git/objects/o", "s/.git/refs/r"}, []string{"s/.git/HEAD", "s/.git/objects/o", "s/.git/refs/r"}, []string{"s/.git/hooks/x"}},
		{"a bare one", nil, []string{"lib/HEAD", "lib/config", "lib/hooks/x", "lib/main.c", "lib/objects/o", "lib/refs/r"}, []string{"lib/main.c"}, []string{"lib/HEAD", "lib/config", "lib/hooks/x", "lib/objects/o", "lib/refs/r"}},
		{"the project", nil, []string{"HEAD", "config", "main.c", "objects/o", "refs/r"}, []string{"main.c"}, []string{"HEAD", "config", "objects/o", "refs/r"}},
		{"in .git", []string{".git/HEAD"}, []string{".git/refs/x/HEAD", ".git/refs/x/config", ".git/refs/x/objects/o", ".git/refs/x/refs/r"}, nil, []string{".git/refs/x/HEAD", ".git/refs/x/config", ".git/refs/x/objects/o", ".git/refs/x/refs/r"}},
		{"another case", nil, []string{"lib/Config", "lib/Head", "lib/OBJECTS/o", "lib/refs/r"}, nil, []string{"lib/Config", "lib/Head", "lib/OBJECTS/o", "lib/refs/r"}},
		{"one that begins elsewhere", nil, []string{"lib/HEAD", "lib/commondir", "other/config", "other/objects/o", "other/refs/r"}, []string{"other/config", "other/objects/o", "other/refs/r"}, []string{"lib/HEAD", "lib/commondir"}},
		{"the last piece", []string{"lib/config", "lib/objects/o", "lib/refs/r"}, []string{"lib/HEAD"}, nil, []string{"lib/HEAD"}},
		{"the last piece, another", []string{"lib/config", "lib/HEAD", "lib/refs/r"}, []string{"lib/objects/o"}, nil, []string{"lib/objects/o"}},
		{"a user's", []string{"lib/HEAD", "lib/objects/o", "lib/refs/r"}, []string{"lib/config", "lib/commondir", "lib/objects/p", "lib/refs/s"}, []string{"lib/objects/p", "lib/refs/s"}, []string{"lib/commondir", "lib/config"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, writes := map[string]string{}, map[string]string{}
			for _, name := range tc.project {
				before[name] = "x"
			}
			for _, name := range tc.writes {
				writes[name] = "y"
			}
			project, _ := target(t, before)
			a, err := Sides{Before: tree(t, before), Upper: tree(t, writes)}.Plan(t.Context(), project)
			if err != nil || len(a.Conflicts) > 0 {
				t.Fatal(a.Conflicts, err)
			}
			if got := paths(a.Todo); !slices.Equal(got, tc.written) {
				t.Errorf("writes %q, want %q", got, tc.written)
			}
			if got := paths(a.Withheld); !slices.Equal(got, tc.withheld) {
				t.Errorf("withholds %q, want %q", got, tc.withheld)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	for path, want := range map[string]bool{
		".envrc": true, "a/.envrc": true, ".vscode/tasks.json": true, "a/.Husky/pre-commit": true, ".claude/settings.json": true,
		"a/.claude/settings.local.json": true, ".mcp.json": true, ".idea": true,
		".claude/skills/x/SKILL.md": true, ".codex/config.toml": true, "a/.Agents/skills/x/SKILL.md": true, ".cursor/mcp.json": true,
		".gemini/settings.json": true, ".claude": true, "CLAUDE/notes": false, "codex/config.toml": false, ".codexes/x": false, "envrc": false, "a.envrc": false, ".envrc.md": false, ".vscodes/x": false,
	} {
		if got := (Change{Path: path, Type: "file"}).Commands(); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
