package manifest

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// files is a directory in memory.
func files(path string, m map[string]string) Dir {
	read := func(name string, _ int64) ([]byte, error) {
		text, ok := m[strings.TrimPrefix(name, path+"/")]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return []byte(text), nil
	}
	list := func(dir string, _ int) (names []string, err error) {
		for name := range m {
			if rest, ok := strings.CutPrefix(path+"/"+name, dir+"/"); ok {
				names = append(names, rest)
			}
		}
		return names, nil
	}
	return Dir{Path: path, ReadFile: read, List: list}
}

const agentText = "---\nbottle: dev\ncommand: [claude, --verbose]\n---\nYou are careful.\n\n--- not the end\n"

func TestFind(t *testing.T) {
	d := files("/etc/carboy", map[string]string{
		"agents/reviewer.md": agentText,
		"bottles/dev.yaml":   "image: busybox:1\negress:\n  allow: [a.test, '*.b.test']\nlimits: {memory: 1GiB, cpus: 1.5, pids: 64}\nenv: {A: x, B: '${B}'}\n",
	})
	a, b, err := Find([]Dir{d}, "reviewer")
	if err != nil {
		t.Fatal(err)
	}
	if a.Bottle != "dev" || a.Command[1] != "--verbose" || a.Prompt != "You are careful.\n\n--- not the end" || a.Source != "/etc/carboy/agents/reviewer.md" {
		t.Errorf("agent %+v", a)
	}
	if b.Image != "busybox:1" || b.Egress.Allow[1].Host != "*.b.test" || b.Limits.CPUs != 1.5 || b.Env["B"] != "${B}" {
		t.Errorf("bottle %+v", b)
	}
}

func TestFindErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		agent string
		files map[string]string
		want  string
	}{
		{"no agent", "x", nil, "looked for /home/u/agents/x.md and /etc/carboy/agents/x.md"},
		{"path as name", "../x", nil, `agent name "../x"`},
		{"no front matter", "x", map[string]string{"agents/x.md": "hello"}, "no bottle: give one"},
		{"no bottle", "x", map[string]string{"agents/x.md": "---\nbottle: y\n---\n"}, "/etc/carboy/bottles/y.yaml"},
		{"bottle path", "x", map[string]string{"agents/x.md": "---\nbottle: ../y\n---\n"}, `/home/u/agents/x.md:2: bottle: "../y" is no name`},
		{"unknown key in agent", "x", map[string]string{"agents/x.md": "---\nbottle: y\ncomand: [a]\n---\n"}, `/home/u/agents/x.md:3: unknown key "comand" (did you mean "command"?)`},
		{"unknown key in bottle", "x", map[string]string{"agents/x.md": "---\nbottle: y\n---\n", "bottles/y.yaml": "image: a\negress:\n  alow: [a]\n"}, `/home/u/bottles/y.yaml:3: unknown key "alow" (did you mean "allow"?)`},
		{"key of a field that is not the file's", "x", map[string]string{"agents/x.md": "---\nbottle: y\nprompt: z\n---\n"}, `/home/u/agents/x.md:3: unknown key "prompt": `},
		{"CRLF", "x", map[string]string{"agents/x.md": "---\r\nbottle: y\r\n\r\nnope: 1\r\n---\r\n"}, `/home/u/agents/x.md:4: unknown key "nope"`},
		{"key twice", "x", map[string]string{"agents/x.md": "---\nbottle: y\n---\n", "bottles/y.yaml": "image: a\nimage: b\n"}, `/home/u/bottles/y.yaml:2: mapping key "image" already defined`},
		{"two documents", "x", map[string]string{"agents/x.md": "---\nbottle: y\n---\n", "bottles/y.yaml": "image: a\n---\nuser: b\n"}, "/home/u/bottles/y.yaml:2: more than one"},
		{"not a mapping", "x", map[string]string{"agents/x.md": "---\nbottle: y\n---\n", "bottles/y.yaml": "- a\n"}, "/home/u/bottles/y.yaml:1:"},
		{"wrong type", "x", map[string]string{"agents/x.md": "---\nbottle: y\n---\n", "bottles/y.yaml": "image: a\nlimits:\n  pids: many\n"}, "/home/u/bottles/y.yaml:3:"},
		{"not YAML", "x", map[string]string{"agents/x.md": "---\nbottle: [y\n---\n"}, "/home/u/agents/x.md:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Find([]Dir{files("/home/u", tt.files), files("/etc/carboy", nil)}, tt.agent)
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOperatorsAgentNeverTakesAUsersBottle(t *testing.T) {
	user := files("/home/u", map[string]string{"bottles/dev.yaml": "image: evil\n"})
	etc := files("/etc/carboy", map[string]string{"agents/a.md": agentText, "bottles/dev.yaml": "image: good\n"})
	_, b, err := Find([]Dir{user, etc}, "a")
	if err != nil || b.Image != "good" {
		t.Errorf("bottle %+v, %v", b, err)
	}
	_, b, err = Find([]Dir{files("/home/u", map[string]string{"agents/a.md": agentText}), etc}, "a")
	if err != nil || b.Image != "good" {
		t.Errorf("a user's agent in the operator's bottle: %+v, %v", b, err)
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"allow", "image", "cpus", "env"}
	for word, want := range map[string]string{"alow": "allow", "imgae": "image", "cpu": "cpus", "network": "", "xy": "", "": ""} {
		got := Suggest(word, known)
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func TestReadErrorsAreNotMissingFiles(t *testing.T) {
	denied := Dir{Path: "/home/u", ReadFile: func(name string, _ int64) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}}
	etc := files("/etc/carboy", map[string]string{"agents/a.md": agentText, "bottles/dev.yaml": "image: good\n"})
	if _, _, err := Find([]Dir{denied, etc}, "a"); !strings.Contains(err.Error(), "/home/u/agents/a.md") {
		t.Errorf("a file that cannot be read is skipped: %v", err)
	}
}
