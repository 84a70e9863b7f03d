package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// TestSkillsOfAProject: a project sends nothing of its user's into the bottle
// that is not in the skill itself.
func TestSkillsOfAProject(t *testing.T) {
	top := t.TempDir()
	skills := filepath.Join(top, projectDir, "skills")
	for _, dir := range []string{filepath.Join(top, "private"), filepath.Join(skills, "good"), filepath.Join(skills, "inner"), filepath.Join(top, "claude/skills/deep")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "SKILL.md"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		".carboy/skills/priv": "../../private", ".carboy/skills/inner/same": "SKILL.md", ".claude": "claude",
	} {
		if err := os.Symlink(target, filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
	}
	who := invoker.User{UID: os.Geteuid(), Home: t.TempDir()}
	for name, want := range map[string]string{"good": "", "priv": "no link is followed", "inner": `"same" is a link`, "deep": "no link is followed"} {
		a := manifest.Agent{Project: true, Source: filepath.Join(top, projectDir, "agents/a.md"), Skills: []string{name}}
		got, err := readSkills(who, &a)
		if want == "" && (err != nil || len(got) != 1 || len(got[0].Files) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	own := manifest.Agent{Source: filepath.Join(top, projectDir, "agents/a.md"), Skills: []string{"priv", "inner"}}
	if got, err := readSkills(who, &own); err != nil || len(got) != 2 {
		t.Errorf("a user's own are his to link: %v, %v", got, err)
	}
	own.Skills = append(own.Skills, "priv")
	if _, err := readSkills(who, &own); err == nil || !strings.Contains(err.Error(), "named twice") {
		t.Errorf("twice: %v", err)
	}
}
