package cmd

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/manifest"
)

// nowhere is a directory without a file.
func nowhere() manifest.Dir {
	read := func(path string, _ int64) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return manifest.Dir{Path: "/dest", ReadFile: read}
}

// What is written has to mean what was read, whatever YAML makes of it.
func TestConvertKeepsValues(t *testing.T) {
	values := []string{
		"", " ", " a ", "1.10", "0x10", "1_000", "1e3", "true", "yes", "null", "~", ".inf", "2001-01-01", "a: b", "a #b", "#", "- a", "-", "[a]", "{a: b}", "'", `"`, "a'b\"c", `\n`, `a\`, "a\nb", "a\n", "\na", "a\n\n  b\n", "\ta",
		"&a", "*a", "!a", "%a", "@a", "`a", "|", ">", ":", "?", "? a", "${A}", "$A", "ü", "\u2028", "a\r\nb", "---", "...", "<<", "=", "a:",
	}
	for i, value := range values {
		b, err := json.Marshal(map[string]any{
			"bottles": map[string]any{"b": map[string]any{"env": map[string]string{"A": value, "B": "last"}}},
			"agents":  map[string]any{"a": map[string]any{"bottle": "b", "skills": []string{value, "last"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		drafts, _, err := convert(b, nowhere(), "x")
		if err != nil {
			t.Errorf("%q: %v", value, err)
			continue
		}
		bottle, err := manifest.Check([]manifest.Dir{nowhere()}, drafts[0].path, drafts[0].text)
		if err != nil || bottle.Bottle.Env["A"] != value || bottle.Bottle.Env["B"] != "last" {
			t.Errorf("%d: %q became %q, %v in\n%s", i, value, bottle.Bottle.Env["A"], err, drafts[0].text)
		}
		agent, err := manifest.ParseAgent(drafts[1].path, drafts[1].text)
		if last := len(agent.Skills) - 1; err != nil || agent.Skills[last] != "last" || last > 0 && agent.Skills[0] != value {
			t.Errorf("%d: %q became %q, %v in\n%s", i, value, agent.Skills, err, drafts[1].text)
		}
	}
}

func TestConvertFindsNames(t *testing.T) {
	x := &conversion{names: map[string]map[string]string{}}
	long := fmt.Sprintf("%060d", 1)
	x.rename("agent", []string{"a", "A", "a b", "a/b", "../a", "ü", "", long, long + "2"})
	taken := map[string]bool{}
	for old, name := range x.names["agent"] {
		if !manifest.ValidName(name) || taken[name] {
			t.Errorf("%q is called %q", old, name)
		}
		taken[name] = true
	}
	if len(taken) != 9 || x.names["agent"]["a"] != "a" {
		t.Errorf("%v", x.names)
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(`{"bottles": {"b": {"env": {"A": "?x"}, "ssh": [{"Host": "h", "Port": 22}], "git": [{"Upstream": "ssh://git@h:2/x"}], "egress": {"allowlist": ["a.test"]}}}, "agents": {"a": {"bottle": "b", "prompt": "p", "skills": ["s"]}}}`))
	f.Add([]byte(`{"bottles": null}`))
	f.Add([]byte(`{"agents": {"a": {"bottle": 5}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		drafts, _, err := convert(text, nowhere(), "x")
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if err := checkDrafts(nowhere(), drafts); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
