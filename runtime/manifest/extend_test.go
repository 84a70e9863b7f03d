package manifest

import (
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const (
	baseText = `image: base
user: node
projects: true
env: {A: base, B: base}
egress: {allow: [a.test, b.test], presets: [npm], dlp: warn}
limits: {memory: 1GiB, pids: 10}
ssh: [{host: git, user: base}, {host: other, key: "agent:x"}]
build: {context: ctx}
`
	childText = `extends: base
image: child
env: {B: child, C: child}
egress: {allow: [{host: b.test, tls: intercept}, c.test], private: [10.0.0.1]}
limits: {pids: 20}
ssh: [{host: git, user: child, key: id}]
`
)

func findBottle(name string, dirs ...Dir) (Bottle, error) {
	return (&family{dirs: dirs}).find(name, 0, Place{}, nil)
}

func TestExtends(t *testing.T) {
	user := files("/u", map[string]string{"bottles/dev.yaml": childText, "agents/x.md": "---\nbottle: dev\n---\n"})
	etc := files("/etc/carboy", map[string]string{"bottles/base.yaml": baseText})
	_, b, err := Find([]Dir{user, etc}, "x")
	if err != nil {
		t.Fatal(err)
	}
	want := Bottle{
		Name: "dev", Source: "/u/bottles/dev.yaml", Parents: []string{"/etc/carboy/bottles/base.yaml"}, Extends: Names{"base"},
		Image: "child", User: "node", Env: map[string]string{"A": "base", "B": "child", "C": "child"},
		Egress: Egress{Allow: []Allowed{{Host: "a.test"}, {Host: "b.test", TLS: "intercept"}, {Host: "c.test"}}, Presets: []string{"npm"}, Private: []string{"10.0.0.1"}, DLP: "warn"},
		Limits: Limits{Memory: "1GiB", Pids: 20},
		SSH:    []SSH{{Host: "other", Key: "agent:x"}, {Host: "git", User: "child", Key: "/u/bottles/id"}},
	}
	if at := b.At("egress", "allow", "c.test"); at != (Place{"/u/bottles/dev.yaml", 4}) {
		t.Errorf("its own: %v", at)
	}
	if at := b.At("limits", "memory"); at != (Place{"/etc/carboy/bottles/base.yaml", 6}) {
		t.Errorf("its parent's: %v", at)
	}
	b.places = nil
	if !reflect.DeepEqual(b, want) {
		t.Errorf("got  %+v\nwant %+v", b, want)
	}
}

func TestExtendsSeveral(t *testing.T) {
	d := files("/d", map[string]string{
		"bottles/x.yaml": "extends: [a, b]\nworkdir: /x\n", "bottles/a.yaml": "extends: c\nuser: a\nimage: a\nenv: {V: a}\n",
		"bottles/b.yaml": "extends: c\nbuild: {context: b}\nenv: {V: b}\n", "bottles/c.yaml": "runtime: runc\nworkdir: /c\nuser: c\n",
	})
	b, err := findBottle("x", d)
	if err != nil {
		t.Fatal(err)
	}
	if b.User != "c" || b.Image != "" || b.Build == nil || b.Build.Context != "/d/bottles/b" || b.Env["V"] != "b" || b.Workdir != "/x" || b.Runtime != "runc" {
		t.Errorf("%+v", b)
	}
	if got := fmt.Sprint(b.Parents); got != "[/d/bottles/a.yaml /d/bottles/c.yaml /d/bottles/b.yaml]" {
		t.Error(got)
	}
}

func TestExtendsErrors(t *testing.T) {
	deep, wide := map[string]string{}, map[string]string{}
	for i := range 20 {
		deep[fmt.Sprintf("bottles/x%d.yaml", i)] = fmt.Sprintf("extends: x%d\n", i+1)
		wide[fmt.Sprintf("bottles/x%d.yaml", i)] = fmt.Sprintf("extends: [x%d, x%d, x%d, x%d]\n", i+1, i+1, i+1, i+1)
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"circle", map[string]string{"bottles/x0.yaml": "extends: [a, b]\n", "bottles/a.yaml": "", "bottles/b.yaml": "extends: c\n", "bottles/c.yaml": "extends: b\n"}, "/d/bottles/c.yaml:1: bottle b extends itself: b -> c -> b"},
		{"itself", map[string]string{"bottles/x0.yaml": "extends: x0\n"}, "x0 -> x0"},
		{"missing", map[string]string{"bottles/x0.yaml": "extends: nope\n"}, "/d/bottles/x0.yaml:1: no bottle nope: looked for /d/bottles/nope.yaml"},
		{"deep", deep, "/d/bottles/x8.yaml:1: extends more than 32 bottles, or deeper than 8"},
		{"wide", wide, "extends more than 32 bottles"},
		{"broken", map[string]string{"bottles/x0.yaml": "extends: a\n", "bottles/a.yaml": "imag: x\n"}, `/d/bottles/a.yaml:1: unknown key "imag" (did you mean "image"?)`},
		{"path", map[string]string{"bottles/x0.yaml": "extends: ../../x\n"}, "/d/bottles/x0.yaml:1: extends:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := findBottle("x0", files("/d", tt.files))
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOperatorsBottleHasNoParentOfAUsers(t *testing.T) {
	user := files("/u", map[string]string{"bottles/base.yaml": "image: evil\n"})
	etc := files("/etc/carboy", map[string]string{"bottles/dev.yaml": "extends: base\n", "bottles/base.yaml": "image: good\n"})
	if b, err := findBottle("dev", user, etc); err != nil || b.Image != "good" {
		t.Errorf("%+v, %v", b, err)
	}
	etc = files("/etc/carboy", map[string]string{"bottles/dev.yaml": "extends: base\n"})
	if b, err := findBottle("dev", user, etc); err == nil {
		t.Errorf("%+v", b)
	}
}

// project fails the test where a bottle of it is looked at.
func project(t *testing.T, m map[string]string) Dir {
	d := files("/p/.carboy", m)
	read := d.ReadFile
	d.Project = true
	d.ReadFile = func(path string, limit int64) ([]byte, error) {
		if strings.Contains(path, "bottles") {
			t.Errorf("%s is looked at", path)
		}
		return read(path, limit)
	}
	return d
}

func TestProjectsAgent(t *testing.T) {
	etc := files("/etc/carboy", map[string]string{
		"bottles/open.yaml": "projects: true\nimage: good\n", "bottles/closed.yaml": "image: good\n",
		"bottles/child.yaml": "extends: open\n", "agents/ours.md": "---\nbottle: closed\n---\n",
	})
	p := project(t, map[string]string{
		"bottles/open.yaml": "image: evil\nprojects: true\n", "bottles/own.yaml": "image: evil\nprojects: true\n",
		"agents/a.md": "---\nbottle: open\nenv: {A: 'b $ {c'}\n---\nHi.", "agents/ours.md": "---\nbottle: open\n---\n",
		"agents/closed.md": "---\nbottle: closed\n---\n", "agents/child.md": "---\nbottle: child\n---\n", "agents/own.md": "---\nbottle: own\n---\n",
		"agents/forward.md": "---\nbottle: open\nenv: {A: '${TOKEN}'}\n---\n", "agents/ask.md": "---\nbottle: open\nenv: {A: ?}\n---\n",
		"agents/credential.md": "---\nbottle: open\nenv: {A: 'credential:x'}\n---\n",
	})
	dirs := []Dir{etc, p}
	if a, b, err := Find(dirs, "a"); err != nil || !a.Project || b.Image != "good" || a.Source != "/p/.carboy/agents/a.md" {
		t.Errorf("%+v, %+v, %v", a, b, err)
	}
	if a, _, err := Find(dirs, "ours"); err != nil || a.Project {
		t.Errorf("the operator's agent gives way to a project's: %+v, %v", a, err)
	}
	for agent, want := range map[string]string{
		"closed": "/p/.carboy/agents/closed.md:2: an agent of a project may not use bottle closed: whoever trusts it with that writes `projects: true` into /etc/carboy/bottles/closed.yaml",
		"child":  "`projects: true` into /etc/carboy/bottles/child.yaml", "own": "/p/.carboy/agents/own.md:2: no bottle own: looked for /etc/carboy/bottles/own.yaml:",
		"forward": "/p/.carboy/agents/forward.md:3: env.A: an agent of a project may have plain values only", "ask": "env.A:", "credential": "env.A:",
	} {
		if _, _, err := Find(dirs, agent); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", agent, err, want)
		}
	}
}

func TestList(t *testing.T) {
	etc := files("/etc/carboy", map[string]string{"bottles/open.yaml": "projects: true\n", "agents/a.md": "---\nbottle: open\n---\n", "agents/broken.md": "---\nbotle: x\n---\n", "agents/.hidden.md": "", "agents/readme.txt": ""})
	p := project(t, map[string]string{"agents/a.md": "---\nbottle: open\n---\n", "agents/b.md": "---\nbottle: open\n---\n", "agents/UP.md": ""})
	all, err := List([]Dir{etc, p, files("/none", nil)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range all {
		got = append(got, fmt.Sprintf("%s project=%v shadowed=%v ok=%v", l.Agent.Name, l.Agent.Project, l.Shadowed, l.Err == nil))
	}
	want := []string{
		"UP project=true shadowed=false ok=false", "a project=false shadowed=false ok=true", "a project=true shadowed=true ok=true",
		"b project=true shadowed=false ok=true", "broken project=false shadowed=false ok=false",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestListTellsWhatItCannotRead(t *testing.T) {
	d := files("/d", nil)
	d.List = func(path string, _ int) ([]string, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	if _, err := List([]Dir{d}); err == nil {
		t.Error("a directory that cannot be read is none")
	}
}

func TestListIsBounded(t *testing.T) {
	many := map[string]string{}
	for i := range 200 {
		many[fmt.Sprintf("agents/a%d.md", i)] = "---\nbottle: x\n---\n"
	}
	all, err := List([]Dir{project(t, many)})
	if len(all) != mostOfProjects || err == nil || !strings.Contains(err.Error(), "more than 100 files") {
		t.Errorf("%d, %v", len(all), err)
	}
	all, err = List([]Dir{files("/d", many)})
	if len(all) != 200 || err != nil {
		t.Errorf("an operator's: %d, %v", len(all), err)
	}
}
