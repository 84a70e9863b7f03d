package provision

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestGitConfig(t *testing.T) {
	a := Agent{Workspace: "/workspace", Git: Git{Name: "A Bot", Email: "bot@example.com",
		InsteadOf: map[string]string{"https://b.test/": "ssh://git@b.test/", "a:": "https://a.test/"}}}
	want := `[include]
	path = "/etc/gitconfig"
[user]
	name = "A Bot"
	email = "bot@example.com"
[url "https://a.test/"]
	insteadOf = "a:"
[url "ssh://git@b.test/"]
	insteadOf = "https://b.test/"
[safe]
	directory = "/workspace"
	directory = "/workspace/*"
`
	files, err := a.gitFiles()
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if f := files[0]; string(f.Data) != want || f.Mode != 0o444 || f.Path != "/run/carboy/gitconfig" {
		t.Errorf("%+v\n%s", f, f.Data)
	}
	if env := a.Env(); len(env) != 1 || env[0] != "GIT_CONFIG_SYSTEM=/run/carboy/gitconfig" {
		t.Errorf("%q", env)
	}
	none := Agent{}
	if files, err := none.Files(); err != nil || len(files) != 0 || len(none.Env()) != 0 {
		t.Errorf("nothing makes %v, %v, %v", files, none.Env(), err)
	}
}

// TestGitReadsWhatWasWritten asks git itself.
func TestGitReadsWhatWasWritten(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git: make deps")
	}
	for _, text := range []string{
		"plain", `quo"ted`, `back\slash`, `end\`, `"`, `]`, `a] b = "c"`, `# no comment`, `; nor this`, ` inner  blanks`, "umlaut ä", `\n`, "[user]", "=",
	} {
		a := Agent{Workspace: "/w" + text, Git: Git{Name: strings.TrimSpace(text), Email: "e", InsteadOf: map[string]string{"p" + text: "u" + text}}}
		if err := a.Git.Check(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(a.gitConfig()), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("git", "config", "--file", file, "--no-includes", "--list", "-z").CombinedOutput()
		want := "include.path\n/etc/gitconfig\x00user.name\n" + strings.TrimSpace(text) + "\x00user.email\ne\x00url.u" + text + ".insteadof\np" + text +
			"\x00safe.directory\n/w" + text + "\x00safe.directory\n/w" + text + "/*\x00"
		if err != nil || string(out) != want {
			t.Errorf("%q: %v\n%q\n%q", text, err, out, want)
		}
	}
}

func TestGitCheck(t *testing.T) {
	for _, g := range []Git{
		{Name: "a\nb"}, {Email: "a\x00"}, {Name: "a\x7f"}, {Name: "a\u0085b"}, {Name: "A <a@b>"}, {Email: " a"},
		{InsteadOf: map[string]string{"a": "b\nc"}}, {InsteadOf: map[string]string{"a\r": "b"}}, {InsteadOf: map[string]string{"": "b"}}, {InsteadOf: map[string]string{"a": ""}},
	} {
		if err := g.Check(); err == nil {
			t.Errorf("%+v is taken", g)
		}
		if _, err := (Agent{Git: g}).Files(); err == nil {
			t.Errorf("%+v is written", g)
		}
	}
}
