package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/manifest"
)

// fetched answers with where a value should come from.
func fetched(_ context.Context, s Secret) ([]byte, error) {
	return fmt.Appendf(nil, "%d:%s", s.From.Kind, s.From.Text), nil
}

func withSecrets() Request {
	return Request{
		Agent: &manifest.Agent{Name: "a", Env: map[string]string{"ASKED": "?agent's", "OVER": "?no"}},
		Bottle: &manifest.Bottle{Image: "x", Env: map[string]string{"ASKED": "?bottle's", "CRED": "credential:c", "GIVEN": "?", "PLAIN": "p"},
			Secrets: map[string]string{"file": "? which", "GIVEN": "?", "forwarded": "${FROM}"}},
		Env:     []string{"OVER=flag"},
		Secrets: []string{"GIVEN=/given", "MORE=fd:5", "file=credential:f"},
		Lookup:  environ(map[string]string{"FROM": "caller's"}),
	}
}

func TestSecrets(t *testing.T) {
	p := mustPlan(t, withSecrets())
	if !slices.Equal(p.Env, []string{"ASKED", "CRED", "GIVEN", "MORE", "OVER", "PLAIN"}) || !slices.Equal(p.Secrets, []string{"GIVEN", "file", "forwarded"}) {
		t.Errorf("env %v, secrets %v", p.Env, p.Secrets)
	}
	if len(p.Pending()) != 6 || !maps.Equal(p.env, map[string]string{"OVER": "flag", "PLAIN": "p"}) {
		t.Errorf("pending %+v, known %v", p.Pending(), p.env)
	}
	if _, err := (&Host{}).Up(t.Context(), p, UpOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a plan without its secrets is brought up: %v", err)
	}
	if err := p.Resolve(t.Context(), fetched); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"ASKED": "2:agent's", "CRED": "3:c", "GIVEN": "4:/given", "MORE": "5:5", "OVER": "flag", "PLAIN": "p"}
	if !maps.Equal(p.env, want) {
		t.Errorf("got %v, want %v", p.env, want)
	}
	files := map[string]string{}
	for name, value := range p.secretFiles {
		files[name] = string(value)
	}
	if !maps.Equal(files, map[string]string{"GIVEN": "4:/given", "file": "3:f", "forwarded": "caller's"}) {
		t.Errorf("files %v", files)
	}
	if len(p.Pending()) != 0 {
		t.Errorf("pending %+v", p.Pending())
	}
}

func TestSecretsThatAreNone(t *testing.T) {
	for name, value := range map[string]string{
		"NUL": "s3cret\x00", "not UTF-8": "s3cret\xff", "more than": strings.Repeat("s3cret", mostVariable/6+1),
	} {
		p := mustPlan(t, Request{Image: "x", Secrets: []string{"TOKEN=/f"}})
		err := p.Resolve(t.Context(), func(context.Context, Secret) ([]byte, error) { return []byte(value), nil })
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "TOKEN") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
	p := mustPlan(t, Request{Image: "x", Secrets: []string{"TOKEN=/f"}})
	gone := errors.New("gone")
	if err := p.Resolve(t.Context(), func(context.Context, Secret) ([]byte, error) { return nil, gone }); !errors.Is(err, gone) {
		t.Error(err)
	}
	many := Request{Agent: &manifest.Agent{Name: "a"}, Bottle: &manifest.Bottle{Image: "x", Secrets: map[string]string{"a": "?", "b": "?", "c": "?"}}}
	err := mustPlan(t, many).Resolve(t.Context(), func(context.Context, Secret) ([]byte, error) { return make([]byte, mostFile), nil })
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("secrets of more than a message to carboy-init holds: %v", err)
	}
}

func FuzzVariable(f *testing.F) {
	f.Add("A=b", "x")
	f.Add("A", "x\x00")
	f.Add("a-b", "")
	f.Fuzz(func(t *testing.T, text, inherited string) {
		lookup := func(string) (string, bool) { return inherited, inherited != "" }
		name, value, err := Variable(text, lookup)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !variableName.MatchString(name) || value != inherited && name+"="+value != text {
			t.Errorf("%q is %q, %q", text, name, value)
		}
		p, err := NewPlan(Request{Image: "x", Env: []string{text}, Lookup: lookup})
		if strings.ContainsRune(value, 0) != (err != nil) || err == nil && p.env[name] != value {
			t.Errorf("%q: %v", text, err)
		}
	})
}
