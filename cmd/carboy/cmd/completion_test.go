package cmd

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"carboy/runtime/manifest/presets"
)

// TestWordsAreOfCommands finds what the tables complete and nobody has.
func TestWordsAreOfCommands(t *testing.T) {
	root, s := newRoot(), &settings{}
	paths, flags := map[string]bool{}, map[string]bool{}
	eachCommand(root, func(c *cobra.Command) {
		path := strings.TrimPrefix(c.CommandPath(), "carboy ")
		paths[path] = true
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			flags[f.Name], flags[path+" "+f.Name] = true, true
		})
	})
	for path := range arguments(s) {
		if !paths[path] {
			t.Errorf("no command %q", path)
		}
	}
	for name := range flagWords(s) {
		if !flags[name] {
			t.Errorf("no flag --%s", name)
		}
	}
	for path, own := range ownFlagWords(s) {
		for name := range own {
			if !flags[path+" "+name] {
				t.Errorf("no flag %s --%s", path, name)
			}
		}
	}
}

// completed is what a shell gets, without the directive.
func completed(t *testing.T, words ...string) []string {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append([]string{cobra.ShellCompNoDescRequestCmd}, words...))
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("complete %q: %v", words, err)
	}
	if said := strings.Split(strings.TrimSpace(errs.String()), "\n"); len(said) != 1 || !strings.HasPrefix(said[0], "Completion ended") {
		t.Errorf("complete %q: said %q", words, said)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[:len(lines)-1]
}

func TestCompletion(t *testing.T) {
	project := t.TempDir()
	t.Chdir(project)
	t.Setenv("CARBOY_LOG_DIR", logs(t, "reviewer", "builder"))
	t.Setenv("CONTAINERD_ADDRESS", filepath.Join(project, "none"))
	if err := os.MkdirAll(".carboy/agents", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mine.md", "broken.md", "$(id).md", "a\tb.md", ".hidden.md", "text.txt"} {
		if err := os.WriteFile(filepath.Join(".carboy/agents", name), []byte("---\n: ["), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		words, want []string
	}{
		{[]string{"run", "m"}, []string{"mine"}},
		{[]string{"run", "mine", "b"}, nil},
		{[]string{"info", ""}, []string{"broken", "mine"}},
		{[]string{"run", "--workspace", "/nonexistent", "m"}, nil},
		{[]string{"run", "--preset", ""}, presets.Names()},
		{[]string{"run", "--workspace-mode", ""}, []string{"copy", "overlay", "bind"}},
		{[]string{"run", "--proxy", ""}, []string{"pipelock", "allowlist"}},
		{[]string{"logs", ""}, []string{"builder", "reviewer"}},
		{[]string{"wait", "builder", ""}, []string{"reviewer"}},
		{[]string{"cp", "b"}, []string{"builder:"}},
		{[]string{"attach", ""}, nil}, // they have ended
		{[]string{"image", "rm", ""}, nil},
		{[]string{"login", "c"}, []string{"claude", "codex"}},
		{[]string{"ls", "x"}, nil},
	} {
		if got := completed(t, tt.words...); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.words, got, tt.want)
		}
	}
}

// logs is a directory of the records of bottles that have ended.
func logs(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		record := `{"name": "` + name + `", "instance": "` + name + `", "containerdNamespace": "carboy"}`
		if err := os.WriteFile(filepath.Join(dir, name, "record.json"), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestCompletionDoesNotHang is on a containerd that takes connections and says
// nothing: what is known without it is there in time.
func TestCompletionDoesNotHang(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	t.Setenv("CONTAINERD_ADDRESS", socket)
	t.Setenv("CARBOY_LOG_DIR", logs(t, "past"))
	begin := time.Now()
	if got := completed(t, "rm", ""); !slices.Equal(got, []string{"past"}) {
		t.Errorf("%q", got)
	}
	if took := time.Since(begin); took < completionTime || took > 10*completionTime {
		t.Errorf("it took %v", took)
	}
}
